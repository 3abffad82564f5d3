//! Aurora DSQL: tokens of another service, and few startup parameters.

use protocol_tests::network::dns::DnsServer;

use super::*;

const CLUSTER: &str = "abc.dsql.eu-central-1.on.aws";

async fn dsql(more: &str) -> World {
    World::with(Setup {
        endpoint: (CLUSTER, crate::support::PORT),
        config: Some(config(CLUSTER, more)),
        engine: Engine::front(FrontKind::Dsql),
        line: Some(LineOptions::counting()),
        ..Setup::default()
    })
    .await
}

/// The role that `user` is in the database.
async fn who(world: &World, user: &str) -> String {
    let sql = "select current_user";
    let asked = ["-A", "-t", "-U", user, "-d", "app", "-c", sql];
    clean_rows(&world.psql(&asked).await).to_owned()
}

#[tokio::test]
async fn ordinary_roles_and_admin_log_in_by_direct_tls() {
    let world = dsql("").await;
    for user in ["db_user", "admin"] {
        assert_eq!(round_trips(&world, user).await, 3, "{user}");
        assert_eq!(round_trips(&world, user).await, 2, "{user}");
        assert_eq!(who(&world, user).await, user);
    }
    assert_eq!(tokens(&world), [true; 6]);
    assert_eq!(direct(&world, CLUSTER), [true; 6]);
    world.stop().await;
}

/// Token and TLS are those of DSQL although the configured name does not tell.
#[tokio::test]
async fn an_alias_is_treated_as_what_it_leads_to() {
    let own = "events.db.example.com";
    let dns = DnsServer::start().await.expect("a name server");
    dns.set_cname(own, CLUSTER);
    let world = World::with(Setup {
        endpoint: (CLUSTER, crate::support::PORT),
        config: Some(config(own, &format!("dns_server = \"{}\"", dns.addr()))),
        engine: Engine::front(FrontKind::Dsql),
        names: vec![own],
        ..Setup::default()
    })
    .await;
    for user in ["db_user", "admin"] {
        assert_eq!(who(&world, user).await, user);
    }
    assert_eq!(tokens(&world), [true; 2]);
    assert_eq!(direct(&world, CLUSTER), [true; 2]);
    world.stop().await;
}

/// `PGGEQO` becomes a startup parameter that DSQL does not know.
async fn with_geqo(world: &World) -> Command {
    let mut command = world.psql_command(&["-A", "-t", "-c", "select current_user"]);
    command.env("PGGEQO", "on");
    command
}

#[tokio::test]
async fn startup_parameters_it_does_not_know_can_be_left_out() {
    let world = dsql("").await;
    let (said, log) = refused_command(&world, with_geqo(&world).await).await;
    let words = "FATAL:  setting configuration parameter \"geqo\" not supported\n";
    let (theirs, ours) = said.split_once("HINT:  ").expect("a hint of ours");
    assert!(theirs.ends_with(words), "nothing of ours in it: {said}");
    assert!(
        ours.contains("ignore_startup_parameters = [\"geqo\"]"),
        "{said}"
    );
    assert_eq!(log["sqlstate"], "0A000");
    assert_eq!(tokens(&world), [true; 0]);
    world.stop().await;

    let world = dsql("ignore_startup_parameters = [\"geqo\", \"extra_float_digits\"]").await;
    let ran = run(with_geqo(&world).await).await;
    assert_eq!(ran.rows(), "db_user");
    let warning = "WARNING:  pgiam removed startup parameters: geqo\n\
                   HINT:  They are listed in ignore_startup_parameters of the target.\n";
    assert_eq!(ran.stderr, warning);
    // Whoever sends none of them is not warned, early token or not.
    let ran = world.psql(&["-A", "-t", "-c", "select current_user"]).await;
    assert_eq!(clean_rows(&ran), "db_user");
    let ran = run(with_geqo(&world).await).await;
    assert_eq!((ran.rows(), ran.stderr.as_str()), ("db_user", warning));
    world.stop().await;
}
