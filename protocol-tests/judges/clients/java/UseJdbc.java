// JDBC, PostgreSQL's own driver. Run as a source file: java -cp postgresql.jar UseJdbc.java

import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.security.MessageDigest;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Objects;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

import org.postgresql.PGConnection;
import org.postgresql.largeobject.LargeObjectManager;
import org.postgresql.util.PGobject;
import org.postgresql.util.PSQLException;

import static java.nio.charset.StandardCharsets.UTF_8;

public class UseJdbc {
    static final String ROLE = env("JUDGE_ROLE");
    static final String DATABASE = env("PGDATABASE");
    static final String URL = "jdbc:postgresql://" + env("PGHOST") + ":" + env("PGPORT") + "/" + DATABASE;
    static final String SLEEP = "select pg_sleep(60)";
    static final long PATIENCE = 30;
    static final String TEXT = "Grüße, 世界 🐘 'quoted' \\ \"twice\"\ttab\nline";
    static final String BIG = "äbcdefg🐘".repeat(125_000);

    interface Step {
        String go() throws Exception;
    }

    Connection db;

    static String env(String name) {
        return Objects.requireNonNull(System.getenv(name), name);
    }

    static Connection connect(String... more) throws SQLException {
        Properties settings = new Properties();
        settings.setProperty("user", env("PGUSER"));
        settings.setProperty("sslmode", env("PGSSLMODE"));
        // Named statements at the server from the second use on, not the fifth.
        settings.setProperty("prepareThreshold", "2");
        for (int i = 0; i < more.length; i += 2) settings.setProperty(more[i], more[i + 1]);
        return DriverManager.getConnection(URL, settings);
    }

    static void same(Object found, Object expected, String what) {
        if (!Objects.deepEquals(found, expected)) {
            throw new AssertionError(what + " is " + brief(found) + ", not " + brief(expected));
        }
    }

    static String brief(Object value) {
        String text = String.valueOf(value);
        return text.length() < 300 ? text : text.substring(0, 300) + "…";
    }

    static String md5(byte[] bytes) throws Exception {
        return HexFormat.of().formatHex(MessageDigest.getInstance("MD5").digest(bytes));
    }

    /** The first row, with a value for each question mark. */
    List<Object> row(String sql, Object... values) throws SQLException {
        try (var statement = db.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) statement.setObject(i + 1, values[i]);
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                List<Object> row = new ArrayList<>();
                for (int i = 1; i <= rows.getMetaData().getColumnCount(); i++) row.add(rows.getObject(i));
                return row;
            }
        }
    }

    void execute(String sql) throws SQLException {
        try (Statement statement = db.createStatement()) {
            statement.execute(sql);
        }
    }

    String login() throws Exception {
        same(row("select current_user::text, current_database()::text, 6 * 7"), List.of(ROLE, DATABASE, 42), "the row");
        return "driver " + db.getMetaData().getDriverVersion();
    }

    String parameters() throws Exception {
        var when = OffsetDateTime.parse("2024-02-29T12:30:01.000005Z");
        var key = new UUID(0, 7);
        var bytes = new byte[256];
        for (int i = 0; i < 256; i++) bytes[i] = (byte) i;
        var json = new PGobject();
        json.setType("jsonb");
        json.setValue("{\"ü\": [1, null]}");
        var numeric = new BigDecimal("12345678901234567890.123456789");
        String sql = "select ?, ?, ?, ?, ?, ?, ?::text, ?::timestamptz, ?, ?, ?, ?";
        // The last rounds come in binary, from a named statement.
        for (int round = 0; round < 4; round++) {
            try (var statement = db.prepareStatement(sql)) {
                Object[] values = {-42, 9007199254740993L, numeric, 0.1, true, TEXT};
                for (int i = 0; i < values.length; i++) statement.setObject(i + 1, values[i]);
                statement.setNull(7, Types.VARCHAR);
                statement.setObject(8, when);
                statement.setObject(9, key);
                statement.setArray(10, db.createArrayOf("int4", new Integer[] {1, null, 3}));
                statement.setBytes(11, bytes);
                statement.setObject(12, json);
                try (ResultSet row = statement.executeQuery()) {
                    row.next();
                    for (int i = 0; i < values.length; i++) same(row.getObject(i + 1), values[i], "value " + (i + 1));
                    same(row.getString(7), null, "the null");
                    same(row.getObject(8, OffsetDateTime.class), when, "the time");
                    same(row.getObject(9), key, "the UUID");
                    same(row.getArray(10).getArray(), new Integer[] {1, null, 3}, "the array");
                    same(row.getBytes(11), bytes, "the bytes");
                    same(row.getString(12), json.getValue(), "the JSON");
                }
            }
        }
        same(row("select md5(?), ?::text", BIG, BIG), List.of(md5(BIG.getBytes(UTF_8)), BIG), "1 MB text");
        return null;
    }

    String prepared() throws Exception {
        int total = 0;
        try (var statement = db.prepareStatement("select ?::int * 7 * ?::int")) {
            for (int i = 1; i <= 10; i++) {
                statement.setInt(1, i);
                statement.setInt(2, i);
                try (ResultSet row = statement.executeQuery()) {
                    row.next();
                    total += row.getInt(1);
                }
            }
            var known = row("select count(*) from pg_prepared_statements where statement like '%* 7 *%' "
                + "and statement not like '%pg_prepared%'");
            same(known, List.of(1L), "statements at the server");
        }
        same(total, 385 * 7, "the sum");
        return null;
    }

    String batch() throws Exception {
        execute("create temp table b (i int primary key)");
        try (var statement = db.prepareStatement("insert into b values (?)")) {
            for (int i = 0; i < 1000; i++) {
                statement.setInt(1, i);
                statement.addBatch();
            }
            same(Arrays.stream(statement.executeBatch()).sum(), 1000, "the counts");
            for (int i : new int[] {1000, 0}) {
                statement.setInt(1, i);
                statement.addBatch();
            }
            db.setAutoCommit(false);
            try {
                statement.executeBatch();
                throw new AssertionError("a number twice went well");
            } catch (BatchUpdateException error) {
                same(error.getSQLState(), "23505", "the SQLSTATE");
            }
            db.rollback();
            db.setAutoCommit(true);
        }
        try (var other = connect("reWriteBatchedInserts", "true"); var make = other.createStatement()) {
            make.execute("create temp table b (i int primary key)");
            try (var statement = other.prepareStatement("insert into b values (?)")) {
                for (int i = 0; i < 1000; i++) {
                    statement.setInt(1, i);
                    statement.addBatch();
                }
                statement.executeBatch();
            }
            try (ResultSet rows = make.executeQuery("select count(*), sum(i) from b")) {
                rows.next();
                same(List.of(rows.getInt(1), rows.getInt(2)), List.of(1000, 499500), "the rewritten batch");
            }
        }
        same(row("select count(*), sum(i) from b"), List.of(1000L, 499500L), "the table");
        return null;
    }

    String cursor() throws Exception {
        db.setAutoCommit(false);
        long sum = 0;
        try (Statement statement = db.createStatement()) {
            statement.setFetchSize(100);
            try (ResultSet rows = statement.executeQuery("select generate_series(1, 1000)")) {
                while (rows.next()) sum += rows.getInt(1);
            }
        }
        db.setAutoCommit(true);
        same(sum, 500500L, "the sum");
        return null;
    }

    String copy() throws Exception {
        execute("create temp table c (id int, t text)");
        var lines = new StringBuilder();
        for (int i = 1; i <= 100_000; i++) lines.append(i).append("\trow ").append(i).append(" äöü\n");
        String expected = md5(lines.toString().getBytes(UTF_8));
        var api = db.unwrap(PGConnection.class).getCopyAPI();
        same(api.copyIn("copy c from stdin", new StringReader(lines.toString())), 100_000L, "the count");
        String check = "select md5(string_agg(id || E'\\t' || t || E'\\n', '' order by id)) from c";
        same(row(check), List.of(expected), "the table");
        var out = new ByteArrayOutputStream();
        api.copyOut("copy (select * from c order by id) to stdout", out);
        same(md5(out.toByteArray()), expected, "what came back");
        return null;
    }

    String listen() throws Exception {
        execute("listen news");
        try (Connection other = connect(); Statement statement = other.createStatement()) {
            statement.execute("select pg_notify('news', 'Grüße')");
            var heard = db.unwrap(PGConnection.class).getNotifications((int) (PATIENCE * 1000));
            same(heard.length, 1, "the number of notifications");
            same(heard[0].getParameter(), "Grüße", "the payload");
            same(heard[0].getPID(), other.unwrap(PGConnection.class).getBackendPID(), "the sender");
        }
        execute("unlisten news");
        return null;
    }

    String largeObject() throws Exception {
        var bytes = new byte[300_000];
        for (int i = 0; i < bytes.length; i++) bytes[i] = (byte) ((long) i * i % 251);
        db.setAutoCommit(false);
        var manager = db.unwrap(PGConnection.class).getLargeObjectAPI();
        long oid = manager.createLO(LargeObjectManager.READWRITE);
        try (var object = manager.open(oid, LargeObjectManager.READWRITE)) {
            object.write(bytes);
            object.seek(0);
            same(object.read(bytes.length), bytes, "the object");
            same(object.tell(), bytes.length, "the place in it");
        }
        same(row("select md5(lo_get(?))", oid), List.of(md5(bytes)), "its sum at the server");
        manager.unlink(oid);
        db.commit();
        db.setAutoCommit(true);
        return "by function calls";
    }

    boolean sleeps(Connection other, int pid) throws SQLException {
        try (Statement statement = other.createStatement();
                ResultSet row = statement.executeQuery("select exists (select from pg_stat_activity where pid = "
                    + pid + " and state = 'active' and wait_event = 'PgSleep')")) {
            row.next();
            return row.getBoolean(1);
        }
    }

    String cancel() throws Exception {
        int pid = db.unwrap(PGConnection.class).getBackendPID();
        try (Statement statement = db.createStatement(); Connection other = connect()) {
            var outcome = CompletableFuture.supplyAsync(() -> {
                try {
                    statement.execute(SLEEP);
                    return "it slept through";
                } catch (SQLException error) {
                    return error.getSQLState();
                }
            });
            long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE);
            while (!sleeps(other, pid)) {
                if (System.nanoTime() > deadline) throw new AssertionError("it never slept");
                Thread.sleep(10);
            }
            statement.cancel();
            same(outcome.get(PATIENCE, TimeUnit.SECONDS), "57014", "the outcome");
            statement.setQueryTimeout(1);
            try {
                statement.execute(SLEEP);
                throw new AssertionError("it slept through");
            } catch (SQLException error) {
                same(error.getSQLState(), "57014", "the outcome");
            }
        }
        same(row("select pg_backend_pid()"), List.of(pid), "the process");
        return "by cancel(), and by the query's timeout";
    }

    void fails(String sql, String state) throws SQLException {
        try {
            execute(sql);
        } catch (SQLException error) {
            same(error.getSQLState(), state, "the SQLSTATE");
            return;
        }
        throw new AssertionError(sql + " went well");
    }

    String error() throws Exception {
        execute("create temp table e (i int primary key)");
        db.setAutoCommit(false);
        execute("insert into e values (1)");
        fails("select 1 / 0", "22012");
        fails("select 1", "25P02");
        db.rollback();
        execute("insert into e values (1)");
        var savepoint = db.setSavepoint();
        try {
            execute("insert into e values (1)");
            throw new AssertionError("a number twice went well");
        } catch (PSQLException error) {
            same(error.getServerErrorMessage().getConstraint(), "e_pkey", "the constraint");
        }
        db.rollback(savepoint);
        execute("insert into e values (2)");
        db.commit();
        db.setAutoCommit(true);
        same(row("select count(*), sum(i) from e"), List.of(2L, 3L), "the table");
        return null;
    }

    static void step(String name, Step step) {
        try {
            String remark = step.go();
            System.out.println("ok " + name + (remark == null ? "" : " (" + remark + ")"));
        } catch (Throwable error) {
            error.printStackTrace();
            System.out.println("FAIL " + name + ": " + error);
            System.exit(1);
        }
    }

    public static void main(String[] args) throws Exception {
        // What PGSSLMODE calls `require` is TLS without verification here too.
        var judge = new UseJdbc();
        step("connect", () -> {
            judge.db = connect();
            return null;
        });
        step("login", judge::login);
        step("parameters", judge::parameters);
        step("prepared", judge::prepared);
        step("batch", judge::batch);
        step("server-side cursor", judge::cursor);
        step("copy", judge::copy);
        step("listen", judge::listen);
        step("large object", judge::largeObject);
        step("cancel", judge::cancel);
        step("error", judge::error);
        judge.db.close();
    }
}
