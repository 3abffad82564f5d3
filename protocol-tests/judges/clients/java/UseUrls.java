// The ways to connect of docs/clients.md by JDBC. JUDGE_HUB is the port of all targets.

import java.sql.DriverManager;

public class UseUrls {
    public static void main(String[] args) throws Exception {
        String role = System.getenv("JUDGE_ROLE");
        String own = "jdbc:postgresql://localhost:" + System.getenv("PGPORT") + "/app";
        String hub = "jdbc:postgresql://localhost:" + System.getenv("JUDGE_HUB") + "/orders";
        // A second slash as it is would be an error of the driver's.
        String[] urls = {own, own + "?sslmode=require", own + "?user=db_user", own + "?user=db_user&password=x",
            hub, hub + "%2Fapp"};
        for (String url : urls) {
            String step = url.replaceFirst(":\\d+", "");
            try (var db = DriverManager.getConnection(url);
                    var row = db.createStatement().executeQuery("select current_user, current_database()")) {
                row.next();
                String found = row.getString(1) + "/" + row.getString(2);
                if (!found.equals(role + "/app")) throw new AssertionError("it is " + found);
                System.out.println("ok " + step);
            } catch (Throwable error) {
                error.printStackTrace();
                System.out.println("FAIL " + step + ": " + error);
                System.exit(1);
            }
        }
    }
}
