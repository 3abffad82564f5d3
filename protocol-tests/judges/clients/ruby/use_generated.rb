# Every URL that pgiam generates, read and used by the parsers and drivers of Ruby.
# See python/use_generated.py for JUDGE_STRINGS.

require 'active_record'
require 'pg'
require 'uri'

WHO = 'select current_user::text as u, current_database()::text as d'
if (file = ENV['JUDGE_STRINGS'])
  CASES = File.readlines(file, encoding: 'UTF-8', chomp: true).map { |line| line.split("\t", -1) }
  ENV.delete_if { |name, _| name.start_with?('PG') }
else
  CASES = [['DATABASE_URL', ENV.fetch('JUDGE_ROLE'), ENV.fetch('JUDGE_DATABASE'), ENV.fetch('DATABASE_URL'), '', '']]
end

def by_pg(*where)
  db = PG.connect(*where)
  db.exec(WHO)[0].values
ensure
  db&.close
end

# As programs do that take a URL apart by themselves.
def by_uri(text)
  url = URI.parse(text)
  plain = ->(part) { URI::DEFAULT_PARSER.unescape(part).force_encoding('UTF-8') }
  database = plain.(url.path.delete_prefix('/'))
  where = { host: url.host, port: url.port, user: plain.(url.user) }
  where[:dbname] = database unless database.empty?
  by_pg(where)
end

def by_active_record(url)
  ActiveRecord::Base.establish_connection(url)
  ActiveRecord::Base.connection.execute(WHO)[0].values
ensure
  ActiveRecord::Base.remove_connection
end

failed = false
CASES.each do |name, role, database, url, _, dsn|
  readers = { 'pg' => -> { by_pg(url) }, 'URI.parse' => -> { by_uri(url) }, 'ActiveRecord' => -> { by_active_record(url) } }
  readers['pg, DSN'] = -> { by_pg(dsn) } unless dsn.empty?
  readers.each do |reader, use|
    found = use.call
    right = found == [role, database]
    failed ||= !right
    puts right ? "ok #{reader}, #{name}" : "FAIL #{reader}, #{name}: #{url} is #{found}"
  rescue StandardError => e
    failed = true
    puts "FAIL #{reader}, #{name}: #{url}: #{e.message}"
  end
end
exit !failed
