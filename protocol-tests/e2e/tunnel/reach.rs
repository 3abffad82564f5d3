//! Where a tunnel can begin: one node or several, by id or by tag, through which document, and which
//! way out of here.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use protocol_tests::aws::agent::{AgentControl, AgentEnd};
use protocol_tests::aws::api::SessionDocument;
use protocol_tests::aws::events::Event;
use protocol_tests::network::proxy::HttpProxy;
use serde_json::Value;

use super::{dialled, resumed, started, world_with};
use crate::failures::refusals;
use crate::shell::Shell;
use crate::support::{BASTION, HOST, PATIENCE, PORT, Setup, World, eventually, ordinary_config};

const A: &str = "i-0aaaaaaaaaaaaaaaa";
const B: &str = "i-0bbbbbbbbbbbbbbbb";
const C: &str = "i-0cccccccccccccccc";
const API: &str = "ssm.eu-central-1.amazonaws.com";
const GATEWAY: &str = "ssmmessages.eu-central-1.amazonaws.com";
const OWN_DOCUMENT: &str = "Team-Forwarding";

/// A login that must fail, told once: what psql says, and the line in the log.
pub(super) async fn refused(world: &World) -> (String, Value) {
    let known = refusals(world).len();
    let ran = world.psql(&["-c", "select 1"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let told = ran.stderr.matches("failed: FATAL:").count();
    assert_eq!(told, 1, "{ran:?}");
    let line = || refusals(world).into_iter().nth(known);
    let line = eventually("the log has it, too", line).await;
    assert_eq!(refusals(world).len(), known + 1);
    (ran.stderr, line)
}

/// A world whose target has `bastion` as in the file.
async fn world_through(bastion: &str) -> World {
    let config = ordinary_config().replace(&format!("\"{BASTION}\""), bastion);
    World::with(Setup {
        config: Some(config),
        ..Setup::default()
    })
    .await
}

/// A node that is online, as fast as it goes, and called `name`.
fn node(world: &World, id: &str, name: &str) -> AgentControl {
    let agent = world.sandbox.agent(id);
    agent.update(|s| {
        s.pace = None;
        s.tags = BTreeMap::from([("Name".to_owned(), name.to_owned())]);
    });
    agent
}

/// The nodes that sessions were started through, oldest first.
fn targets(world: &World) -> Vec<String> {
    let all = world.sandbox.events().all();
    let targets = all.into_iter().filter_map(|event| match event {
        Event::StartSession { target, .. } => Some(target),
        _ => None,
    });
    targets.collect()
}

/// How often `StartSession` was asked for a node that is not there.
fn asked_in_vain(world: &World) -> usize {
    let in_vain =
        |e: &Event| matches!(e, Event::ApiDenied { code, .. } if code == "TargetNotConnected");
    world.sandbox.events().count(in_vain)
}

/// Ends the latest session, and waits until the program knows.
async fn end_session(world: &World) {
    let id = started(world).pop().expect("a session");
    ended_by(world, || assert!(world.sandbox.terminate_session(&id))).await;
}

/// Shuts a node down, and waits until the program knows that its session is over.
async fn shut_down(world: &World, node: &AgentControl) {
    ended_by(world, || node.stop(AgentEnd::Graceful)).await;
}

async fn ended_by(world: &World, act: impl FnOnce()) {
    let ended = || {
        let log = world.proxy.log_text();
        log.matches("\"SSM session ended\"").count()
    };
    let known = ended();
    act();
    eventually("the program knows", || (ended() > known).then_some(())).await;
}

#[tokio::test]
async fn a_list_of_nodes_is_gone_through_until_one_works() {
    let world = world_through(&format!("[\"{A}\", \"{B}\"]")).await;
    let (a, b) = (node(&world, A, "a"), node(&world, B, "b"));
    a.set_online(false);
    assert_eq!(world.query("select 'second'").await, "second");
    assert_eq!(
        (targets(&world), asked_in_vain(&world)),
        (vec![B.into()], 1)
    );
    // The one that failed is not asked again at once.
    end_session(&world).await;
    assert_eq!(world.query("select 'at once'").await, "at once");
    assert_eq!((targets(&world).len(), asked_in_vain(&world)), (2, 1));

    a.set_online(true);
    shut_down(&world, &b).await;
    assert_eq!(world.query("select 'first'").await, "first");
    assert_eq!(targets(&world), [B, B, A]);

    shut_down(&world, &a).await;
    let (said, log) = refused(&world).await;
    assert_eq!(log["id"], "ssm.all-bastions", "{said}");
    assert_eq!(log["sqlstate"], "08001");
    let detail = log["detail"].as_str().expect("a detail");
    assert!(said.contains(detail), "{said}");
    for id in [A, B] {
        let words = format!("{id}: TargetNotConnected");
        assert!(detail.contains(&words), "{detail}");
    }
    b.set_online(true);
    assert_eq!(world.query("select 'again'").await, "again");
    assert_eq!(targets(&world), [B, B, A, B]);
    world.stop().await;
}

#[tokio::test]
async fn a_dial_that_fails_is_tried_through_the_next_node() {
    let world = world_through(&format!("\"{A}, {B}\"")).await;
    for id in [A, B] {
        node(&world, id, id);
    }
    let vpc = world.sandbox.vpc();
    vpc.add(HOST, PORT, protocol_tests::network::vpc::Endpoint::Refused);
    let (said, log) = refused(&world).await;
    assert_eq!(log["id"], "tunnel.dial", "{said}");
    let dials = dialled(&world);
    assert_eq!(targets(&world), [A, B], "{said} {dials:?}");
    assert!(said.contains(B), "{said}");
    assert_eq!(dials, started(&world));
    vpc.open(HOST, PORT, world.database.addr());
    assert_eq!(world.query("select 'open'").await, "open");
    world.stop().await;
}

#[tokio::test]
async fn nodes_with_a_tag_are_found_on_all_pages() {
    let world = world_through("{ tag = \"Name=jump host\" }").await;
    world.sandbox.api().limit_pages(1);
    // The ordinary node is there as well, online and called otherwise.
    let [a, b, c] = [A, B, C].map(|id| node(&world, id, "jump host"));
    a.set_online(false);
    assert_eq!(world.query("select 'b'").await, "b");
    assert_eq!(
        (targets(&world), asked_in_vain(&world)),
        (vec![B.into()], 0)
    );

    shut_down(&world, &b).await;
    assert_eq!(world.query("select 'c'").await, "c");
    assert_eq!((targets(&world).len(), asked_in_vain(&world)), (2, 1));
    assert_eq!(targets(&world)[1], C);

    shut_down(&world, &c).await;
    let (said, log) = refused(&world).await;
    assert_eq!(log["id"], "ssm.all-bastions", "{said}");
    let detail = log["detail"].as_str().expect("a detail");
    for id in [A, B, C] {
        assert!(detail.contains(id), "{detail}");
    }
    assert!(!detail.contains(BASTION), "{detail}");
    // One that is new is found because all that were known have failed.
    node(&world, "i-0dddddddddddddddd", "jump host");
    assert_eq!(world.query("select 'd'").await, "d");
    assert_eq!(targets(&world)[2], "i-0dddddddddddddddd");
    world.stop().await;
}

#[tokio::test]
async fn of_many_nodes_with_a_tag_ten_are_tried_at_a_time() {
    let world = world_through("{ tag = \"Name=fleet\" }").await;
    for n in 0..23 {
        // Registered, and not connected.
        node(&world, &format!("i-0{n:016x}"), "fleet").set_online(false);
    }
    for expected in [10, 20] {
        let (said, log) = refused(&world).await;
        assert_eq!(log["id"], "ssm.all-bastions", "{said}");
        assert!(said.contains("13 more match"), "{said}");
        assert_eq!(asked_in_vain(&world), expected);
    }
    // The next attempt comes to the others.
    node(&world, &format!("i-0{:016x}", 22), "fleet").set_online(true);
    assert_eq!(world.query("select 'found'").await, "found");
    world.stop().await;
}

#[tokio::test]
async fn a_tag_that_nobody_has_is_named() {
    let world = world_through("{ tag = \"Role=jump\" }").await;
    let (said, log) = refused(&world).await;
    assert_eq!(log["id"], "ssm.no-bastion", "{said}");
    assert_eq!(log["sqlstate"], "08001");
    for words in ["Role=jump", "eu-central-1"] {
        assert!(said.contains(words), "{said}");
    }
    let user = &world.sandbox.user().access_key_id;
    world.sandbox.iam().update(user, |user| {
        let action = "ssm:DescribeInstanceInformation";
        user.deny.insert(action.to_owned());
    });
    let (said, log) = refused(&world).await;
    assert_eq!(log["id"], "ssm.access-denied", "{said}");
    assert_eq!(log["sqlstate"], "08004");
    let action = "\"ssm:DescribeInstanceInformation\"";
    assert!(said.contains(action), "{said}");
    world.sandbox.iam().update(user, |user| user.deny.clear());

    let agent = world.sandbox.agent(BASTION);
    agent.update(|s| {
        s.tags.insert("Role".to_owned(), "jump".to_owned());
    });
    assert_eq!(world.query("select 'found'").await, "found");
    assert_eq!(targets(&world), [BASTION]);
    world.stop().await;
}

#[tokio::test]
async fn machines_elsewhere_and_containers_carry_tunnels() {
    const MANAGED: &str = "mi-0123456789abcdef0";
    const TASK: &str =
        "ecs:web_apps_0123456789abcdef0123456789abcdef_0123456789abcdef0123456789abcdef-1234567890";
    let world = world_through(&format!("[\"{MANAGED}\", \"{TASK}\"]")).await;
    let managed = node(&world, MANAGED, "managed");
    let task = node(&world, TASK, "task");
    assert_eq!(world.query("select 'managed'").await, "managed");
    shut_down(&world, &managed).await;
    assert_eq!(world.query("select 'task'").await, "task");
    assert_eq!(targets(&world), [MANAGED, TASK]);
    shut_down(&world, &task).await;
    let (said, log) = refused(&world).await;
    assert_eq!(log["id"], "ssm.all-bastions", "{said}");
    for id in [MANAGED, TASK] {
        assert!(said.contains(id), "{said}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_document_of_ones_own_takes_the_place_of_that_of_aws() {
    let world = world_with(&format!("document = \"{OWN_DOCUMENT}\"")).await;
    let arn = "arn:aws:ssm:eu-central-1:123456789012:document";
    let theirs = "arn:aws:ssm:eu-central-1::document/AWS-StartPortForwardingSessionToRemoteHost";
    let user = &world.sandbox.user().access_key_id;
    let deny = |document: &str| {
        world.sandbox.iam().update(user, |user| {
            let entry = format!("ssm:StartSession:document {document}");
            user.deny = [entry].into();
        });
    };
    // Whatever works from here on works without the document of AWS.
    deny(theirs);
    let (said, log) = refused(&world).await;
    assert_eq!(log["id"], "ssm.document", "{said}");
    assert_eq!(log["sqlstate"], "08001");
    assert!(said.contains(OWN_DOCUMENT), "{said}");

    let sandbox = &world.sandbox;
    sandbox.add_document(OWN_DOCUMENT, SessionDocument::default());
    assert_eq!(world.query("select 'ours'").await, "ours");
    end_session(&world).await;
    deny(&format!("{arn}/{OWN_DOCUMENT}"));
    let (said, log) = refused(&world).await;
    assert_eq!(log["id"], "ssm.access-denied", "{said}");
    assert_eq!(log["sqlstate"], "08004");
    assert!(
        said.contains(&format!(":document/{OWN_DOCUMENT}")),
        "{said}"
    );
    world.stop().await;
}

/// A world that must leave by `proxy`, where AWS's own names lead to the sandbox.
async fn world_behind(
    proxy: &HttpProxy,
    login: &str,
    env: &[(&'static str, Option<&str>)],
) -> World {
    let url = proxy.url().replace("http://", &format!("http://{login}"));
    let mut setup = Setup::default();
    setup.env.push(("HTTPS_PROXY", Some(url)));
    let env = env.iter().map(|(name, v)| (*name, v.map(str::to_owned)));
    setup.env.extend(env);
    let world = World::with(setup).await;
    let sandbox = SocketAddr::from((Ipv4Addr::LOCALHOST, world.sandbox.port()));
    proxy.route("*.amazonaws.com", sandbox);
    world
}

/// How often somebody was connected to the HTTPS port of `host`.
fn connects(proxy: &HttpProxy, host: &str) -> usize {
    let target = format!("{host}:443");
    let connected = proxy.connected().into_iter();
    connected.filter(|to| *to == target).count()
}

#[tokio::test]
async fn calls_and_data_channels_leave_by_the_proxy() {
    let proxy = HttpProxy::start(Some(("me", "pass word"))).await;
    let proxy = proxy.expect("the proxy");
    let world = world_behind(&proxy, "me:pass%20word@", &[("AWS_ENDPOINT_URL", None)]).await;
    let mut psql = Shell::open(&world, "");
    assert_eq!(psql.ask("select 'through';").await, "through");
    assert!(connects(&proxy, API) >= 1, "{:?}", proxy.log());
    assert_eq!(connects(&proxy, GATEWAY), 1, "{:?}", proxy.log());
    // A connection that comes back takes the same way.
    assert!(world.sandbox.cut_client(&started(&world)[0]));
    assert_eq!(psql.ask("select 'again';").await, "again");
    assert_eq!((resumed(&world), connects(&proxy, GATEWAY)), (1, 2));
    drop(psql);
    world.stop().await;
    // Nothing was asked without the login, and nobody else was asked for.
    for request in proxy.log() {
        assert_eq!(request.status, 200, "{request:?}");
        let known = [API, GATEWAY].map(|host| format!("{host}:443"));
        assert!(known.contains(&request.target), "{request:?}");
    }
}

/// Nothing of a proxy's password may be seen anywhere.
fn assert_kept(world: &World, said: &str, password: &str) {
    for text in [said, &world.proxy.log_text()] {
        let line = text.lines().find(|line| line.contains(password));
        assert_eq!(line, None, "the password of the proxy is shown");
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_calls_is_named_and_its_password_is_not() {
    let proxy = HttpProxy::start(Some(("me", "right"))).await;
    let proxy = proxy.expect("the proxy");
    let world = world_behind(&proxy, "me:quite-wrong@", &[("AWS_ENDPOINT_URL", None)]).await;
    let (said, log) = refused(&world).await;
    assert_kept(&world, &said, "quite-wrong");
    assert_kept(&world, &said, "bWU6cXVpdGUtd3Jvbmc"); // The same as the header has it.
    let requests = proxy.log();
    assert!(requests.iter().all(|r| r.status == 407), "{requests:?}");
    assert!(!requests.is_empty());
    world.stop().await;
    assert_eq!(log["sqlstate"], "08001");
    assert!(said.contains("407"), "{said}");
    assert!(said.contains(&proxy.address().to_string()), "{said}");
}

#[tokio::test]
async fn a_proxy_that_refuses_data_channels_is_named_and_its_password_is_not() {
    let proxy = HttpProxy::start(Some(("me", "right"))).await;
    let proxy = proxy.expect("the proxy");
    // The calls go to this machine, and so past the proxy; the gateway is elsewhere.
    let gateway = format!("https://{GATEWAY}");
    let env = [("AWS_ENDPOINT_URL_SSMMESSAGES", Some(gateway.as_str()))];
    let world = world_behind(&proxy, "me:quite-wrong@", &env).await;
    let (said, log) = refused(&world).await;
    assert_kept(&world, &said, "quite-wrong");
    assert_kept(&world, &said, "bWU6cXVpdGUtd3Jvbmc"); // The same as the header has it.
    assert_eq!(log["id"], "net.proxy", "{said}");
    assert_eq!(log["sqlstate"], "08001");
    assert!(said.contains("407"), "{said}");
    assert!(said.contains(&proxy.address().to_string()), "{said}");
    // The session that was started for it is not left open.
    let events = world.sandbox.events();
    let terminated = |e: &Event| matches!(e, Event::TerminateSession { .. });
    assert!(events.wait_for(terminated, PATIENCE).await.is_some());
    world.stop().await;
}

#[tokio::test]
async fn no_proxy_and_an_endpoint_for_the_gateway_choose_each_way_by_itself() {
    let proxy = HttpProxy::start(None).await.expect("the proxy");
    // NO_PROXY of the harness names localhost, where the sandbox is: nobody needs the proxy.
    let world = world_behind(&proxy, "", &[]).await;
    assert_eq!(world.query("select 'past'").await, "past");
    assert_eq!(proxy.log(), []);
    world.stop().await;

    // The gateway has a name of its own, whatever host the service answers.
    let gateway = format!("https://{GATEWAY}");
    let env = [("AWS_ENDPOINT_URL_SSMMESSAGES", Some(gateway.as_str()))];
    let world = world_behind(&proxy, "", &env).await;
    assert_eq!(world.query("select 'through'").await, "through");
    assert_eq!(proxy.connected(), [format!("{GATEWAY}:443")]);
    world.stop().await;
    assert_eq!(proxy.log().len(), 1, "{:?}", proxy.log());
}

#[tokio::test]
async fn the_profile_can_say_where_the_gateway_is() {
    let proxy = HttpProxy::start(None).await.expect("the proxy");
    let world = world_behind(&proxy, "", &[("AWS_ENDPOINT_URL", None)]).await;
    let config = format!(
        "[default]\nservices = near\n[services near]\nssmmessages =\n  endpoint_url = {}\n",
        world.sandbox.endpoint_url()
    );
    let file = world.sandbox.dir().join("config");
    std::fs::write(file, config).expect("the AWS configuration");
    assert_eq!(world.query("select 'near'").await, "near");
    assert!(connects(&proxy, API) >= 1, "{:?}", proxy.log());
    assert_eq!(connects(&proxy, GATEWAY), 0, "{:?}", proxy.log());
    world.stop().await;
}
