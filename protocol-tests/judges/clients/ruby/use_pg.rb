# The pg gem, on the libpq of the system.
# Where to connect comes from the environment, as libpq reads it.

require 'digest'
require 'pg'

ROLE = ENV.fetch('JUDGE_ROLE')
TLS = ENV.fetch('PGSSLMODE') != 'disable'
TEXT = "Grüße, 世界 🐘 'quoted' \\ \"twice\"\ttab\nline"
BIG = 'äbcdefg🐘' * 125_000
LINES = (1..100_000).map { |i| "#{i}\trow #{i} äöü\n" }
LINES_MD5 = Digest::MD5.hexdigest(LINES.join)
COPY_CHECK = "select md5(string_agg(id || E'\\t' || t || E'\\n', '' order by id)) from c"
OBJECT = (0...300_000).map { |i| i * i % 251 }.pack('C*')
PATIENCE = 30

def same(found, expected, what = 'the answer')
  raise "#{what} is #{found.inspect[0, 300]}, not #{expected.inspect[0, 300]}" unless found == expected
end

def wait_until
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + PATIENCE
  until yield
    raise 'did not come true in time' if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

    sleep 0.01
  end
end

def state_of
  yield
  raise 'it went well'
rescue PG::Error => e
  e.result.error_field(PG::PG_DIAG_SQLSTATE)
end

$stdout.sync = true
def step(name)
  remark = yield
  puts "ok #{name}#{" (#{remark})" if remark.is_a?(String)}"
rescue StandardError => e
  warn e.full_message
  puts "FAIL #{name}: #{e.message}"
  exit! 1
end

db = PG.connect

step 'login' do
  same db.exec('select current_user, current_database(), 6 * 7').values, [[ROLE, ENV.fetch('PGDATABASE'), '42']]
  same db.ssl_in_use?, TLS, 'TLS'
  "libpq #{PG.library_version}"
end

step 'parameters' do
  typed = PG::BasicTypeMapForQueries.new(db)
  results = PG::BasicTypeMapForResults.new(db)
  bytes = (0..255).to_a.pack('C*')
  values = [-42, 9_007_199_254_740_993, 0.1, true, TEXT, nil]
  sql = 'select $1::int, $2::int8, $3::float8, $4::bool, $5::text, $6::text'
  [0, 1].each do |format|
    answer = db.exec_params(sql, values, format, typed)
    answer.type_map = results
    same answer.values, [values], "the row in format #{format}"
  end
  answer = db.exec_params('select $1::bytea, $2::jsonb, $3::numeric, $4::int[]',
                          [{ value: bytes, format: 1 }, '{"ü": null}', '12345678901234567890.123456789', '{1,NULL,3}'])
  same PG::Connection.unescape_bytea(answer.getvalue(0, 0)), bytes
  same answer.values[0][1..], ['{"ü": null}', '12345678901234567890.123456789', '{1,NULL,3}']
  same db.exec_params('select md5($1), $1::text', [BIG]).values, [[Digest::MD5.hexdigest(BIG), BIG]]
  true
end

step 'prepared' do
  db.prepare('square', 'select $1::int * $1::int')
  same((1..10).sum { |i| db.exec_prepared('square', [i]).getvalue(0, 0).to_i }, 385)
  same db.exec('select name from pg_prepared_statements').values, [['square']]
  same db.describe_prepared('square').nparams, 1
end

step 'pipeline' do
  db.enter_pipeline_mode
  200.times { |i| db.send_query_params('select $1::int + 1', [i]) }
  db.send_query_params('select 1 / 0', [])
  db.send_query_params('select 1', [])
  db.pipeline_sync
  answers = (1..200).map do
    answer = db.get_result
    same db.get_result, nil
    answer.getvalue(0, 0).to_i
  end
  same answers, (1..200).to_a
  same((state_of { db.get_last_result }), '22012')
  skipped = db.get_result
  same skipped.result_status, PG::PGRES_PIPELINE_ABORTED
  same db.get_result, nil
  same db.get_result.result_status, PG::PGRES_PIPELINE_SYNC
  db.exit_pipeline_mode
end

step 'copy' do
  db.exec('create temp table c (id int, t text)')
  db.copy_data('copy c from stdin') { LINES.each { |line| db.put_copy_data(line) } }
  same db.exec(COPY_CHECK).getvalue(0, 0), LINES_MD5, 'the table'
  sum = Digest::MD5.new
  db.copy_data('copy (select * from c order by id) to stdout') do
    while (line = db.get_copy_data)
      sum << line
    end
  end
  same sum.hexdigest, LINES_MD5, 'what came back'
end

step 'single row mode' do
  db.send_query('select generate_series(1, 1000)')
  db.set_single_row_mode
  total = 0
  db.get_result.stream_each_row { |row| total += row[0].to_i }
  same db.get_result, nil
  same total, 500_500
end

step 'listen' do
  other = PG.connect
  db.exec('listen news')
  other.exec_params('select pg_notify($1, $2)', %w[news Grüße])
  heard = nil
  db.wait_for_notify(PATIENCE) { |channel, pid, payload| heard = [channel, pid, payload] }
  same heard, ['news', other.backend_pid, 'Grüße']
  db.exec('unlisten news')
  other.close
end

step 'large object' do
  db.transaction do
    oid = db.lo_creat(PG::INV_READ | PG::INV_WRITE)
    object = db.lo_open(oid, PG::INV_READ | PG::INV_WRITE)
    same db.lo_write(object, OBJECT), OBJECT.bytesize
    db.lo_lseek(object, 0, PG::SEEK_SET)
    same db.lo_read(object, OBJECT.bytesize), OBJECT, 'the object'
    same db.lo_tell(object), OBJECT.bytesize
    db.lo_close(object)
    db.lo_unlink(oid)
  end
  'by function calls'
end

step 'cancel' do
  pid = db.backend_pid
  sleeper = Thread.new { state_of { db.exec('select pg_sleep(60)') } }
  other = PG.connect
  wait_until do
    other.exec("select exists (select from pg_stat_activity where pid = #{pid} and state = 'active' " \
               "and wait_event = 'PgSleep')").getvalue(0, 0) == 't'
  end
  same db.cancel, nil, 'the outcome of the request'
  same sleeper.join(PATIENCE)&.value, '57014', 'the outcome'
  same db.exec('select pg_backend_pid()').getvalue(0, 0).to_i, pid, 'the process'
  other.close
end

step 'error' do
  db.exec('create temp table e (i int primary key)')
  db.exec('begin; insert into e values (1)')
  same((state_of { db.exec('select 1 / 0') }), '22012')
  same((state_of { db.exec_params('select $1::int', [1]) }), '25P02')
  db.exec('rollback')
  db.exec('begin; insert into e values (1); savepoint s')
  begin
    db.exec('insert into e values (1)')
    raise 'it went well'
  rescue PG::UniqueViolation => e
    same e.result.error_field(PG::PG_DIAG_CONSTRAINT_NAME), 'e_pkey'
  end
  db.exec('rollback to s; insert into e values (2); commit')
  same db.exec('select count(*), sum(i) from e').values, [%w[2 3]]
end

db.close
