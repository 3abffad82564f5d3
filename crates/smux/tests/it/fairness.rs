//! Tests that streams share the carrier fairly.

use bytes::Bytes;
use smux::{Frame, Mux, MuxRole, StreamId};

use crate::support::{parse, psh};

const PACKET: usize = 1024;

fn bulk_session(streams: usize) -> (Mux, Vec<StreamId>) {
    let mut session = Mux::new(MuxRole::Client);
    let ids: Vec<_> = (0..streams).map(|_| session.open().unwrap()).collect();
    for id in &ids {
        session.send(*id, Bytes::from(vec![1; 1 << 20])).unwrap();
    }
    // Past the first visits, so that all of them are bulk streams.
    for _ in 0..2 * streams {
        session.poll_transmit(PACKET).unwrap();
    }
    (session, ids)
}

fn frames(session: &mut Mux) -> Vec<Frame> {
    parse(session.poll_transmit(PACKET).unwrap())
}

#[test]
fn a_small_message_of_an_idle_stream_is_in_the_next_packet() {
    let (mut session, _) = bulk_session(50);
    let quiet = session.open().unwrap();
    session.send(quiet, Bytes::from_static(b"q")).unwrap();
    let packet = frames(&mut session);
    assert_eq!(packet[..2], [Frame::Syn(quiet), psh(quiet.get(), b"q")]);
    assert_eq!(packet.len(), 3, "the rest of the packet is not wasted");

    // Back to idle after one round of the others; then it is first again.
    for _ in 0..51 {
        session.poll_transmit(PACKET).unwrap();
    }
    session.send(quiet, Bytes::from_static(b"r")).unwrap();
    assert_eq!(frames(&mut session)[0], psh(quiet.get(), b"r"));
}

#[test]
fn a_stream_that_always_has_a_little_cannot_starve_the_others() {
    let (mut session, bulk) = bulk_session(1);
    let chatty: Vec<_> = (0..3).map(|_| session.open().unwrap()).collect();
    let mut bulk_bytes = 0;
    for _ in 0..1000 {
        for id in &chatty {
            if session.queued(*id) < 2 * PACKET {
                session.send(*id, Bytes::from(vec![2; PACKET])).unwrap();
            }
        }
        for frame in frames(&mut session) {
            if let Frame::Psh { id, data } = frame
                && id == bulk[0]
            {
                bulk_bytes += data.len();
            }
        }
    }
    // A fair quarter is 256 packets; a stream that was served first each time would leave none.
    assert!(bulk_bytes > 200 * PACKET, "{bulk_bytes}");
}

/// The same with a stream that is idle in between: it fills one packet, is emptied by it, and fills
/// the next. In each round it may have its ordinary turn and one as a newcomer, not more.
#[test]
fn a_stream_that_comes_back_at_once_has_at_most_two_turns_in_a_round() {
    let (mut session, bulk) = bulk_session(2);
    let chatty = session.open().unwrap();
    session.poll_transmit(PACKET).unwrap();
    let mut packets = 0;
    for _ in 0..300 {
        if session.queued(chatty) == 0 {
            session
                .send(chatty, Bytes::from(vec![2; PACKET - 8]))
                .unwrap();
        }
        let first = frames(&mut session).remove(0);
        packets += u32::from(matches!(first, Frame::Psh { id, .. } if bulk.contains(&id)));
    }
    assert!(packets >= 140, "{packets} of 300 for the two bulk streams");
}

#[test]
fn bulk_streams_share_evenly() {
    let (mut session, ids) = bulk_session(7);
    let mut sent = vec![0_usize; ids.len()];
    for _ in 0..700 {
        for frame in frames(&mut session) {
            if let Frame::Psh { id, data } = frame {
                sent[ids.iter().position(|i| *i == id).unwrap()] += data.len();
            }
        }
    }
    let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
    assert!(most - least <= 2 * PACKET, "{sent:?}");
}

#[test]
fn a_fin_does_not_wait_for_other_streams_data() {
    let (mut session, ids) = bulk_session(3);
    session.abandon(ids[1]);
    let polls = (1..)
        .find(|_| frames(&mut session).contains(&Frame::Fin(ids[1])))
        .unwrap();
    assert!(polls <= ids.len(), "{polls}");
}

/// A query beside a COPY: megabytes of one stream are queued, and each hundred bytes of another
/// leave whole in the next packet, or in the one after when it was served a moment ago.
#[test]
fn small_messages_do_not_queue_behind_an_upload() {
    let mut session = Mux::new(MuxRole::Client);
    let quiet = session.open().unwrap();
    let upload = session.open().unwrap();
    session.poll_transmit(PACKET).unwrap();
    session.send(upload, Bytes::from(vec![1; 8 << 20])).unwrap();
    for round in 0..500_usize {
        // At once after the last one, and after the upload was alone for a while.
        for _ in 0..round % 5 {
            session.poll_transmit(PACKET).unwrap();
        }
        session.send(quiet, Bytes::from(vec![2; 100])).unwrap();
        let message = Frame::Psh {
            id: quiet,
            data: Bytes::from(vec![2; 100]),
        };
        let packets = (1..=3).find(|_| frames(&mut session).contains(&message));
        let most = if round % 5 == 0 { 2 } else { 1 };
        assert!(packets.is_some_and(|n| n <= most), "{round}: {packets:?}");
    }
    assert!(session.queued(upload) > 6 << 20, "the upload was not idle");
}
