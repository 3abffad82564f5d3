//! Tests against a DNS server on loopback.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

use super::*;

const CLUSTER: &str = "orders.cluster-abc123.eu-central-1.rds.amazonaws.com";
const INSTANCE: &str = "orders-1.abc123.eu-central-1.rds.amazonaws.com";

/// Response of the server for one name.
#[derive(Clone)]
enum Says {
    Alias(&'static str, u32),
    Exists,
    Nothing,
    Trouble,
}

/// A server for CNAME queries (RFC 1035, section 4). Names outside its zone do not exist.
struct Dns {
    address: SocketAddr,
    zone: Arc<Mutex<HashMap<String, Says>>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// Each response takes one permit, which lets a test delay the server.
    held: Arc<Semaphore>,
}

impl Dns {
    async fn new(zone: &[(&str, Says)]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let dns = Self {
            address: socket.local_addr().unwrap(),
            zone: Arc::default(),
            asked: Arc::default(),
            held: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        };
        for (name, says) in zone {
            dns.set(name, says.clone());
        }
        let (zone, asked, held) = (dns.zone.clone(), dns.asked.clone(), dns.held.clone());
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let query = &buffer[..length];
                let (name, end) = question(query);
                asked.lock().unwrap().push(name.clone());
                held.acquire().await.unwrap().forget();
                let says = zone.lock().unwrap().get(&name).cloned();
                let answer = answer(&query[..end], says.unwrap_or(Says::Nothing));
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        dns
    }

    /// Starts a server with a chain of CNAMEs with a TTL of 60 s.
    async fn chain(names: &[&'static str]) -> Self {
        let link = |pair: &[&'static str]| (pair[0], Says::Alias(pair[1], 60));
        let zone: Vec<_> = names.windows(2).map(link).collect();
        Self::new(&zone).await
    }

    fn set(&self, name: &str, says: Says) {
        self.zone.lock().unwrap().insert(name.to_owned(), says);
    }

    /// Returns the names that were queried, each once: the resolver repeats itself on a slow
    /// machine.
    fn asked(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.dedup();
        asked
    }

    fn aliases(&self) -> Aliases {
        Aliases::new(Some(self.address))
    }

    fn aliases_at(&self, hand: &Hand) -> Aliases {
        Aliases::with_clock(Some(self.address), hand.clock())
    }
}

/// Returns the name in a query with one question, and the offset at which the question ends.
fn question(query: &[u8]) -> (String, usize) {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8(query[at + 1..end].to_vec()).unwrap());
        at = end;
    }
    let cname = [0, 5];
    assert_eq!(query[at + 1..at + 3], cname, "another type was asked for");
    (labels.join(".").to_ascii_lowercase(), at + 5)
}

/// Builds the response to a query, which is cut off after its question.
fn answer(query: &[u8], says: Says) -> Vec<u8> {
    let (code, target) = match says {
        Says::Alias(target, ttl) => (0, Some((target, ttl))),
        Says::Exists => (0, None),
        Says::Nothing => (3, None),
        Says::Trouble => (2, None),
    };
    let mut out = query.to_vec();
    out[2..4].copy_from_slice(&[0x81, 0x80 | code]);
    out[4..12].copy_from_slice(&[0, 1, 0, target.is_some().into(), 0, 0, 0, 0]);
    if let Some((target, ttl)) = target {
        let mut name = Vec::new();
        for label in target.split('.') {
            name.push(u8::try_from(label.len()).unwrap());
            name.extend(label.as_bytes());
        }
        name.push(0);
        // A pointer to the question's name, type CNAME, class IN.
        out.extend([0xc0, 12, 0, 5, 0, 1]);
        out.extend(ttl.to_be_bytes());
        out.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
        out.extend(name);
    }
    out
}

/// A clock that a test sets by hand.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn set(&self, second: u64) {
        self.0.store(second, SeqCst);
    }

    fn clock(&self) -> Clock {
        let hand = self.0.clone();
        Arc::new(move || {
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + hand.load(SeqCst))
        })
    }
}

async fn text(aliases: &Aliases, host: &str) -> String {
    aliases.resolve(host).await.unwrap_err().to_string()
}

#[tokio::test]
async fn an_endpoint_is_its_own_answer_and_nobody_is_asked() {
    let dns = Dns::new(&[]).await;
    let aliases = dns.aliases();
    for host in [
        CLUSTER.to_owned(),
        CLUSTER.to_uppercase(),
        format!("{CLUSTER}."),
    ] {
        assert_eq!(aliases.resolve(&host).await.unwrap(), CLUSTER);
    }
    let dsql = "abc.dsql.us-east-1.on.aws";
    assert_eq!(aliases.resolve(dsql).await.unwrap(), dsql);
    for address in ["10.0.0.7", "fd00::7"] {
        let refused = aliases.resolve(address).await.unwrap_err();
        assert!(
            matches!(refused, AliasError::NoAlias { .. }),
            "{address}: {refused:?}"
        );
    }
    assert!(dns.asked().is_empty());
}

#[tokio::test]
async fn the_first_endpoint_of_a_chain_is_the_one() {
    let dns = Dns::chain(&[
        "orders.example.com",
        "db.internal.example.com",
        CLUSTER,
        INSTANCE,
    ])
    .await;
    let aliases = dns.aliases();
    let resolved = aliases.resolve("Orders.Example.com.").await.unwrap();
    assert_eq!(resolved, CLUSTER);
    assert_eq!(
        dns.asked(),
        ["orders.example.com", "db.internal.example.com"]
    );
}

#[tokio::test]
async fn answers_in_other_letters_are_understood() {
    let dns = Dns::new(&[
        ("a.example.com", Says::Alias("B.Example.COM", 60)),
        (
            "b.example.com",
            Says::Alias("X.Cluster-ABC.eu-central-1.RDS.amazonaws.com", 60),
        ),
        (
            "global",
            Says::Alias("world.global-abc.global.rds.amazonaws.com", 60),
        ),
        (
            "world.global-abc.global.rds.amazonaws.com",
            Says::Alias(CLUSTER, 60),
        ),
    ])
    .await;
    let resolved = dns.aliases().resolve("a.example.com").await.unwrap();
    assert_eq!(resolved, "x.cluster-abc.eu-central-1.rds.amazonaws.com");
    // The writer endpoint of a global database resolves to the cluster.
    assert_eq!(dns.aliases().resolve("global").await.unwrap(), CLUSTER);
}

#[tokio::test]
async fn names_that_lead_nowhere_are_told_with_the_way() {
    let dns = Dns::new(&[
        ("a.example.com", Says::Exists),
        ("b.example.com", Says::Alias("c.example.com", 60)),
        ("c.example.com", Says::Alias("a.example.com", 60)),
        ("d.example.com", Says::Alias("gone.example.com", 60)),
    ])
    .await;
    let aliases = dns.aliases();
    for (host, ending) in [
        ("a.example.com", "a.example.com has no CNAME record"),
        (
            "b.example.com",
            "b.example.com → c.example.com → a.example.com is not an endpoint and has no CNAME record",
        ),
        (
            "d.example.com",
            "d.example.com → gone.example.com does not exist",
        ),
        ("e.example.com", "e.example.com does not exist"),
    ] {
        let expected =
            format!("{host} is not an RDS or DSQL endpoint or a CNAME for one: {ending}");
        assert_eq!(text(&aliases, host).await, expected);
    }
}

#[tokio::test]
async fn circles_and_long_chains_end() {
    let circle = Dns::chain(&["a", "b", "c", "b"]).await;
    let error = circle.aliases().resolve("a").await.unwrap_err();
    let chain = ["a", "b", "c", "b"].map(Into::into).to_vec();
    let host = "a".to_owned();
    assert_eq!(error, AliasError::Loop { host, chain });
    assert!(
        error.to_string().ends_with("8 CNAMEs: a → b → c → b"),
        "{error}"
    );

    let eight = Dns::chain(&["1", "2", "3", "4", "5", "6", "7", "8", CLUSTER]).await;
    assert_eq!(eight.aliases().resolve("1").await.unwrap(), CLUSTER);
    let nine = Dns::chain(&["0", "1", "2", "3", "4", "5", "6", "7", "8", CLUSTER]).await;
    let error = nine.aliases().resolve("0").await.unwrap_err();
    assert!(matches!(error, AliasError::Loop { .. }), "{error:?}");
}

#[tokio::test]
async fn what_only_resembles_an_endpoint_is_none() {
    for odd in [
        "x y.cluster-abc123.eu-central-1.rds.amazonaws.com",
        "x\u{1b}[2J\ny.cluster-abc123.eu-central-1.rds.amazonaws.com",
    ] {
        let dns = Dns::chain(&["a.example.com", odd]).await;
        let error = dns.aliases().resolve("a.example.com").await.unwrap_err();
        assert!(matches!(error, AliasError::NoAlias { .. }), "{error:?}");
        // Text from the network is escaped before it reaches a terminal.
        assert!(!error.to_string().contains(char::is_control), "{error}");
    }
}

#[tokio::test]
async fn answers_are_kept_as_long_as_dns_says_within_bounds() {
    // TTL, a second at which the cached answer is still valid, a second at which it is not.
    for (ttl, holds, over) in [(60, 39, 60), (0, 3, 5), (86_400, 199, 300)] {
        let dns = Dns::new(&[("a", Says::Alias(CLUSTER, ttl))]).await;
        let hand = Hand::default();
        let aliases = dns.aliases_at(&hand);
        assert_eq!(aliases.resolve("a").await.unwrap(), CLUSTER);
        dns.set("a", Says::Alias(INSTANCE, ttl));
        hand.set(holds);
        assert_eq!(aliases.resolve("a").await.unwrap(), CLUSTER, "TTL {ttl}");
        hand.set(over);
        assert_eq!(aliases.resolve("a").await.unwrap(), INSTANCE, "TTL {ttl}");
    }
}

#[tokio::test]
async fn the_shortest_ttl_of_the_way_counts() {
    let dns = Dns::new(&[
        ("a", Says::Alias("b", 30)),
        ("b", Says::Alias(CLUSTER, 300)),
    ])
    .await;
    let hand = Hand::default();
    let aliases = dns.aliases_at(&hand);
    assert_eq!(aliases.resolve("a").await.unwrap(), CLUSTER);
    dns.set("a", Says::Alias(INSTANCE, 30));
    hand.set(30);
    assert_eq!(aliases.resolve("a").await.unwrap(), INSTANCE);
}

#[tokio::test]
async fn what_was_forgotten_is_asked_for_again() {
    let dns = Dns::new(&[("a", Says::Alias(CLUSTER, 300))]).await;
    let aliases = dns.aliases_at(&Hand::default());
    assert_eq!(aliases.resolve("a").await.unwrap(), CLUSTER);
    dns.set("a", Says::Alias(INSTANCE, 300));
    aliases.forget("b");
    assert_eq!(aliases.resolve("a").await.unwrap(), CLUSTER);
    aliases.forget("A.");
    assert_eq!(aliases.resolve("a").await.unwrap(), INSTANCE);
}

#[tokio::test]
async fn callers_share_a_lookup() {
    let dns = Dns::new(&[("a", Says::Alias(CLUSTER, 60))]).await;
    dns.held.forget_permits(Semaphore::MAX_PERMITS);
    let aliases = Arc::new(dns.aliases());
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let aliases = aliases.clone();
            tokio::spawn(async move { aliases.resolve("a").await })
        })
        .collect();
    while dns.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    dns.held.add_permits(100);
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), CLUSTER);
    }
    let packets = dns.asked.lock().unwrap().len();
    assert!(
        packets <= 3,
        "{packets}: no more than one lookup's repetitions"
    );
}

#[tokio::test]
async fn an_old_answer_serves_while_there_is_no_new_one() {
    for trouble in [Says::Trouble, Says::Nothing, Says::Exists] {
        let dns = Dns::new(&[("a", Says::Alias(CLUSTER, 60))]).await;
        let hand = Hand::default();
        let aliases = dns.aliases_at(&hand);
        assert_eq!(aliases.resolve("a").await.unwrap(), CLUSTER);
        dns.set("a", trouble.clone());
        hand.set(60);
        assert_eq!(aliases.resolve("a").await.unwrap(), CLUSTER);
        // The next attempt is 30 s later.
        dns.set("a", Says::Alias(INSTANCE, 60));
        hand.set(79);
        assert_eq!(aliases.resolve("a").await.unwrap(), CLUSTER);
        hand.set(90);
        assert_eq!(aliases.resolve("a").await.unwrap(), INSTANCE);
        // The stale answer expires.
        dns.set("a", trouble);
        hand.set(90 + 60 + 3599);
        assert_eq!(aliases.resolve("a").await.unwrap(), INSTANCE);
        hand.set(90 + 60 + 3600 + 30);
        aliases.resolve("a").await.unwrap_err();
    }
}

#[tokio::test]
async fn a_failure_is_remembered_for_a_moment() {
    let dns = Dns::new(&[]).await;
    let hand = Hand::default();
    let aliases = dns.aliases_at(&hand);
    aliases.resolve("a").await.unwrap_err();
    dns.set("a", Says::Alias(CLUSTER, 60));
    hand.set(3);
    aliases.resolve("a").await.unwrap_err();
    hand.set(5);
    assert_eq!(aliases.resolve("a").await.unwrap(), CLUSTER);
}

#[tokio::test]
async fn a_server_in_trouble_is_told_from_a_name_without_alias() {
    let dns = Dns::new(&[("a.example.com", Says::Trouble)]).await;
    let said = text(&dns.aliases(), "a.example.com").await;
    let expected = "cannot resolve the CNAME a.example.com: ";
    assert!(said.starts_with(expected), "{said}");
    assert!(said.contains("Server Failure"), "{said}");
}

#[tokio::test]
async fn a_silent_server_is_not_waited_for_longer_than_the_deadline() {
    let dns = Dns::new(&[]).await;
    dns.held.forget_permits(Semaphore::MAX_PERMITS);
    // From here on, time advances whenever all tasks wait.
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let error = dns.aliases().resolve("a.example.com").await.unwrap_err();
    assert!(matches!(error, AliasError::Dns { .. }), "{error:?}");
    assert!(
        began.elapsed() <= DEADLINE + Duration::from_millis(100),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn the_servers_of_this_machine_can_be_read() {
    // The result depends on the machine; the test checks that there is no panic.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { drop(resolver(None)) });
}
