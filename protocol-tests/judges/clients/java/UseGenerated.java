// Every JDBC URL that pgiam generates, and DATABASE_URL as Java programs take it apart.
// See python/use_generated.py for JUDGE_STRINGS.

import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.util.List;
import org.postgresql.ds.PGSimpleDataSource;

public class UseGenerated {
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    private static boolean failed;

    private static String who(Connection connection) throws Exception {
        try (connection;
                var row = connection.createStatement().executeQuery("select current_user, current_database()")) {
            row.next();
            return row.getString(1) + "\t" + row.getString(2);
        }
    }

    /** As programs do that take a URL apart by themselves. */
    private static String byUri(String text) throws Exception {
        URI url = new URI(text);
        var source = new PGSimpleDataSource();
        source.setServerNames(new String[] {url.getHost()});
        source.setPortNumbers(new int[] {url.getPort()});
        source.setUser(url.getUserInfo());
        String database = url.getPath().substring(1);
        if (!database.isEmpty()) source.setDatabaseName(database);
        return who(source.getConnection());
    }

    private interface Use {
        String of() throws Exception;
    }

    private static void judge(String step, String text, String expected, Use use) {
        try {
            String found = use.of();
            boolean right = found.equals(expected);
            failed |= !right;
            OUT.println(right ? "ok " + step : "FAIL " + step + ": " + text + " is " + found);
        } catch (Exception error) {
            failed = true;
            OUT.println("FAIL " + step + ": " + text + ": " + error);
        }
    }

    public static void main(String[] args) throws Exception {
        String file = System.getenv("JUDGE_STRINGS");
        List<String> lines = file != null
            ? Files.readAllLines(Path.of(file), StandardCharsets.UTF_8)
            : List.of(String.join("\t", "DATABASE_URL", System.getenv("JUDGE_ROLE"),
                System.getenv("JUDGE_DATABASE"), System.getenv("DATABASE_URL"), ""));
        for (String line : lines) {
            String[] part = line.split("\t", -1);
            String expected = part[1] + "\t" + part[2];
            judge("java.net.URI, " + part[0], part[3], expected, () -> byUri(part[3]));
            if (!part[4].isEmpty()) {
                judge("JDBC, " + part[0], part[4], expected, () -> who(DriverManager.getConnection(part[4])));
            }
        }
        System.exit(failed ? 1 : 0);
    }
}
