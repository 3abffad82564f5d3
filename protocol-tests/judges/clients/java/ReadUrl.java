import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Properties;

/** What the JDBC driver makes of a URL, one line each. */
class ReadUrl {
    public static void main(String[] args) {
        Properties read = org.postgresql.Driver.parseURL(args[0], null);
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (String name : new String[] {"PGHOST", "PGPORT", "user", "PGDBNAME", "sslmode"}) {
            out.println(read.getProperty(name));
        }
    }
}
