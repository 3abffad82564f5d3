# ActiveRecord, without Rails, over the pg gem.

require 'logger' # Older versions of its support library forget this.
require 'active_record'
require 'digest'
require 'pg'

ROLE = ENV.fetch('JUDGE_ROLE')
TLS = ENV.fetch('PGSSLMODE') != 'disable'
TEXT = "Grüße, 世界 🐘 'quoted' \\ \"twice\"\ttab\nline"
BIG = 'äbcdefg🐘' * 125_000
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

# The error of the block, and the SQLSTATE that it carries.
def failure
  yield
rescue ActiveRecord::StatementInvalid => e
  [e.class, e.cause.result.error_field(PG::PG_DIAG_SQLSTATE)]
else
  raise 'it went well'
end

$stdout.sync = true
def step(name)
  remark = yield
  puts "ok #{name}#{" (#{remark})" if remark.is_a?(String)}"
rescue StandardError => e
  warn e.full_message[0, 2000]
  puts "FAIL #{name}: #{e.message[0, 300]}"
  exit! 1
end

class Item < ActiveRecord::Base
  self.table_name = 'active_record_item'
  validates :name, presence: true
end

# As config/database.yml has it: neither username nor password.
SETTINGS = { adapter: 'postgresql', host: ENV.fetch('PGHOST'), port: ENV.fetch('PGPORT').to_i,
             database: ENV.fetch('PGDATABASE'), pool: 5, connect_timeout: 30 }.freeze
ActiveRecord::Base.establish_connection(SETTINGS)
db = ActiveRecord::Base.connection

step 'login' do
  same db.select_rows('select current_user, current_database(), 6 * 7'), [[ROLE, ENV.fetch('PGDATABASE'), 42]]
  same db.raw_connection.ssl_in_use?, TLS, 'TLS'
  "ActiveRecord #{ActiveRecord.version}"
end

step 'schema' do
  ActiveRecord::Schema.verbose = false
  ActiveRecord::Schema.define do
    create_table :active_record_item, force: true do |t|
      t.text :name, null: false
      t.decimal :price, precision: 30, scale: 9
      t.datetime :seen
      t.binary :data
      t.jsonb :more
      t.integer :numbers, array: true
      t.index :name, unique: true
    end
  end
  same Item.column_names, %w[id name price seen data more numbers]
end

step 'parameters' do
  values = { name: TEXT, price: BigDecimal('12345678901234567890.123456789'),
             seen: Time.utc(2024, 2, 29, 12, 30, 1, 5), data: (0..255).to_a.pack('C*'),
             more: { 'ü' => [1, nil] }, numbers: [1, nil, 3] }
  Item.create!(values)
  found = Item.find_by!(name: TEXT)
  values.each { |key, value| same found[key], value, key.to_s }
  Item.create!(name: BIG[0, 1000], more: { text: BIG })
  same Item.where(data: nil).first.more['text'], BIG, 'the large value'
end

step 'prepared' do
  same((1..10).sum { |i| Item.where('id > ?', -i).limit(i).count }, 19)
  ids = Item.pluck(:id).sort
  same((1..10).map { |i| Item.find_by(id: ids[i % 2])&.id }.tally.values, [5, 5])
  known = db.select_value("select count(*) from pg_prepared_statements where statement like '%active_record_item%'")
  raise 'nothing is prepared at the server' unless known.positive?
end

step 'batch' do
  Item.insert_all!((0...1000).map { |i| { name: "n#{i}", price: i } })
  same Item.where("name ~ '^n[0-9]'").sum(:price), 499_500
  same Item.in_batches(of: 100).count, 11
end

step 'pool' do
  squares = Array.new(20) do |i|
    Thread.new do
      ActiveRecord::Base.connection_pool.with_connection { |own| own.select_value("select #{i} * #{i}") }
    end
  end
  same squares.sum(&:value), 2470
end

# Migrations take a lock of the session.
step 'advisory lock' do
  same db.get_advisory_lock(42), true
  other = ActiveRecord::Base.connection_pool.checkout
  same other.get_advisory_lock(42), false
  ActiveRecord::Base.connection_pool.checkin(other)
  same db.release_advisory_lock(42), true
end

step 'copy' do
  raw = db.raw_connection
  db.execute('create temp table c (id int, t text)')
  lines = (1..1000).map { |i| "#{i}\trow #{i} äöü\n" }
  raw.copy_data('copy c from stdin') { lines.each { |line| raw.put_copy_data(line) } }
  out = []
  raw.copy_data('copy (select * from c order by id) to stdout') do
    while (line = raw.get_copy_data)
      out << line.force_encoding('UTF-8')
    end
  end
  same out, lines
end

step 'cancel' do
  pid = Queue.new
  sleeper = Thread.new do
    ActiveRecord::Base.connection_pool.with_connection do |own|
      pid << own.raw_connection
      failure { own.execute('select pg_sleep(60)') }
    end
  end
  sleeping = pid.pop
  wait_until do
    db.select_value("select exists (select from pg_stat_activity where pid = #{sleeping.backend_pid} " \
                    "and state = 'active' and wait_event = 'PgSleep')")
  end
  same sleeping.cancel, nil, 'the outcome of the request'
  same sleeper.join(PATIENCE)&.value, [ActiveRecord::QueryCanceled, '57014'], 'the outcome'
end

step 'error' do
  same((failure { Item.transaction { Item.delete_all; db.execute('select 1 / 0') } })[1], '22012')
  same Item.count, 1002
  same((failure { Item.create!(name: TEXT) }), [ActiveRecord::RecordNotUnique, '23505'])
  Item.transaction do
    Item.create!(name: 'after')
    failure { Item.transaction(requires_new: true) { Item.create!(name: 'after') } }
    Item.create!(name: 'after all')
  end
  same Item.count, 1004
end

# A connection that the server has ended is opened again.
step 'lost connection' do
  pid = db.raw_connection.backend_pid
  other = ActiveRecord::Base.connection_pool.checkout
  same other.select_value("select pg_terminate_backend(#{pid})"), true
  ActiveRecord::Base.connection_pool.checkin(other)
  wait_until { !db.active? }
  db.verify!
  same db.select_value('select current_user'), ROLE
end

step 'close' do
  # The second one comes with every schema.
  %i[active_record_item ar_internal_metadata].each { |table| db.drop_table table }
  ActiveRecord::Base.connection_handler.clear_all_connections!
end
