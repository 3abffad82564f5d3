//! Tests of the identity check against an STS on loopback.

use std::sync::LazyLock;
use std::sync::atomic::AtomicUsize;

use super::*;

const KNOWN: &str = "<GetCallerIdentityResponse><GetCallerIdentityResult>\
     <Arn>arn:aws:iam::111122223333:user/me</Arn><UserId>AIDA</UserId>\
     <Account>111122223333</Account></GetCallerIdentityResult></GetCallerIdentityResponse>";
const REGION: &str = "eu-central-1";
static IN: LazyLock<Region> = LazyLock::new(|| REGION.into());

fn refusal(code: &str) -> String {
    format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>m</Message></Error></ErrorResponse>"
    )
}

/// Starts an STS that gives `fixed` as its only answer, or none. Returns the number of requests.
async fn sts(fixed: Option<(u16, String)>) -> (Files, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, SeqCst);
            match &fixed {
                Some((status, body)) => answer(stream, *status, body).await,
                None => open.push(stream),
            }
        }
    });
    let files = Files::new(&format!("[profile dev]\nendpoint_url = {url}\n{KEYS}"));
    (files, asked)
}

#[tokio::test]
async fn aws_tells_account_keys_and_time() {
    let rejected = |code: &str| KeyState::Rejected {
        code: code.to_owned(),
    };
    for (status, body, account, keys) in [
        (
            200,
            KNOWN.to_owned(),
            Some("111122223333"),
            Some(KeyState::Accepted),
        ),
        (403, refusal("ExpiredToken"), None, Some(KeyState::Expired)),
        (
            403,
            refusal("InvalidClientTokenId"),
            None,
            Some(rejected("InvalidClientTokenId")),
        ),
        (403, refusal("AccessDenied"), None, None),
        (400, refusal("Throttling"), None, None),
    ] {
        let (files, asked) = sts(Some((status, body))).await;
        let context = AwsContext::new(stopped(&files, SERVED_AT - 420));
        let identity = context.identity(&IN, BESIDE_AN_ERROR).await;
        let account = account.map(str::to_owned);
        let arn = identity.arn.clone();
        assert_eq!(arn.is_some(), keys == Some(KeyState::Accepted));
        assert_eq!(identity, Identity { account, keys, arn });
        assert_eq!(context.clock_offset(), Some(ClockOffset { seconds: 420 }));
        // There is one request, whatever the answer was, and another one for other keys.
        assert_eq!(context.identity(&IN, BESIDE_AN_ERROR).await, identity);
        assert_eq!(asked.load(SeqCst), 1);
        context.invalidate();
        assert_eq!(context.identity(&IN, BESIDE_AN_ERROR).await, identity);
        assert_eq!(asked.load(SeqCst), 1);
        let config = std::fs::read_to_string(files.path("config")).unwrap();
        files.write("config", &config.replace("EXAMPLE\n", "ANOTHER\n"));
        context.invalidate();
        assert_eq!(context.identity(&IN, BESIDE_AN_ERROR).await, identity);
        assert_eq!(asked.load(SeqCst), 2);
    }
}

#[tokio::test]
async fn a_question_without_an_answer_is_given_up_and_shared() {
    let (files, asked) = sts(None).await;
    let context = Arc::new(AwsContext::new(files.options("dev")));
    context.credentials().await.unwrap();
    let begun = std::time::Instant::now();
    let (one, two) = tokio::join!(
        context.identity(&IN, BESIDE_AN_ERROR),
        context.identity(&IN, BESIDE_AN_ERROR)
    );
    let took = begun.elapsed();
    assert_eq!((one, two), (Identity::default(), Identity::default()));
    assert!((2..4).contains(&took.as_secs()), "{took:?}");
    assert_eq!(
        context.identity(&IN, BESIDE_AN_ERROR).await,
        Identity::default()
    );
    assert!(
        begun.elapsed() < took + Duration::from_secs(1),
        "not asked again"
    );
    assert_eq!(asked.load(SeqCst), 1);
}

#[tokio::test]
async fn nothing_is_asked_without_credentials() {
    let files = Files::new("[profile other]\n");
    assert_eq!(
        files.context("dev").identity(&IN, BESIDE_AN_ERROR).await,
        Identity::default()
    );
}

#[tokio::test]
async fn what_is_said_of_the_identity_is_bounded_and_harmless() {
    let long = "x".repeat(100_000);
    let body = KNOWN.replace("user/me", &format!("user/\u{202e}{long}"));
    let body = body.replace("<Account>111122223333", &format!("<Account>{long}"));
    let (files, _) = sts(Some((200, body))).await;
    let identity = files.context("dev").identity(&IN, BESIDE_AN_ERROR).await;
    assert_eq!(identity.account, None);
    let arn = identity.arn.unwrap();
    assert!(arn.len() < 1100 && !arn.contains('\u{202e}'), "{arn}");
}
