//! A connection that is lost in the middle of a message: what the client has got is the server's, to
//! the last byte.

use super::*;

/// More than fits anywhere on the way.
const SIZE: usize = 100_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_put_into_half_a_message() {
    for by_server in [true, false] {
        let world = World::start().await;
        let who = [("user", "db_user"), ("database", "app")];
        let mut client = Raw::log_in(world.proxy.port(), &who).await;
        let key = client.told(b'K');
        let pid = u32::from_be_bytes(key[..4].try_into().expect("a process id"));
        client.ask(&format!("select repeat('x', {SIZE})")).await;
        // RowDescription, and the head of DataRow with its one column.
        let mut head = [0; 5];
        let stream = &mut client.stream;
        stream.read_exact(&mut head).await.expect("a description");
        assert_eq!(head[0], b'T');
        let length: [u8; 4] = head[1..].try_into().expect("a length");
        let mut description = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream
            .read_exact(&mut description)
            .await
            .expect("all of it");
        let mut head = [0; 11];
        stream.read_exact(&mut head).await.expect("a row");
        assert_eq!(head[0], b'D');
        let mut row = vec![0; 1 << 20];
        stream.read_exact(&mut row).await.expect("a megabyte of it");
        assert!(row.iter().all(|byte| *byte == b'x'));

        if by_server {
            // It can write no more, so it closes without a word.
            let stuck = format!(
                "select exists (select from pg_stat_activity where pid = {pid} \
                 and wait_event = 'ClientWrite')"
            );
            world.wait_sql_steady(&stuck, 30).await;
            let ended = format!("select pg_terminate_backend({pid})");
            assert_eq!(world.admin(&ended).await, "t");
        } else {
            for session in world.sandbox.open_sessions() {
                assert!(world.sandbox.terminate_session(&session));
            }
        }
        row.clear();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut row)).await;
        // With a reset or without.
        _ = ended.expect("the connection ends");
        assert!(row.len() < SIZE - (1 << 20), "{} bytes", row.len());
        let injected = row.iter().position(|byte| *byte != b'x');
        assert_eq!(injected, None, "by_server: {by_server}");
        world.stop().await;
    }
}
