//! Small conversations, written out.

use bytes::Bytes;
use smux::{Command, Frame, FrameError, Mux, MuxError, MuxEvent, MuxRole};

use crate::support::{drain, events, id, parse, psh, wire};

fn client_with_stream() -> (Mux, smux::StreamId) {
    let mut session = Mux::new(MuxRole::Client);
    let stream = session.open().unwrap();
    assert_eq!(drain(&mut session, 1024), [Frame::Syn(stream)]);
    (session, stream)
}

#[test]
fn ids_are_odd_for_clients_and_even_for_servers() {
    let mut client = Mux::new(MuxRole::Client);
    let mut server = Mux::new(MuxRole::Server);
    for n in 1..5 {
        assert_eq!(client.open().unwrap(), id(2 * n + 1));
        assert_eq!(server.open().unwrap(), id(2 * n));
    }
    assert_eq!(client.open_streams(), 4);
}

#[test]
fn the_syn_rides_with_the_first_bytes_and_streams_share_a_packet() {
    let mut session = Mux::new(MuxRole::Client);
    let a = session.open().unwrap();
    let b = session.open().unwrap();
    session.send(a, Bytes::from_static(b"one ")).unwrap();
    session.send(a, Bytes::from_static(b"two")).unwrap();
    session.send(b, Bytes::from_static(b"three")).unwrap();
    session.finish(b);
    assert_eq!((session.queued(a), session.queued(b)), (7, 5));
    let packet = session.poll_transmit(1024).unwrap();
    let expected = [
        Frame::Syn(a),
        psh(3, b"one two"),
        Frame::Syn(b),
        psh(5, b"three"),
        Frame::Fin(b),
    ];
    assert_eq!(parse(packet), expected);
    assert_eq!((session.queued(a), session.queued(b)), (0, 0));
    assert_eq!(session.poll_transmit(1024), None);
    assert_eq!(session.open_streams(), 1);
}

#[test]
fn packets_respect_any_maximum_and_carry_the_same_bytes() {
    for max in 1..40 {
        let mut session = Mux::new(MuxRole::Client);
        let mut expected = Vec::new();
        for n in 0..3_u8 {
            let stream = session.open().unwrap();
            let data = vec![n; 50 + usize::from(n)];
            session.send(stream, Bytes::from(data.clone())).unwrap();
            session.finish(stream);
            expected.push((stream, data));
        }
        let frames = drain(&mut session, max);
        for (stream, data) in expected {
            let of_stream = frames.iter().filter_map(|frame| match frame {
                Frame::Psh { id, data } if *id == stream => Some(data.to_vec()),
                _ => None,
            });
            assert_eq!(of_stream.collect::<Vec<_>>().concat(), data, "max {max}");
            let syn = frames
                .iter()
                .position(|f| *f == Frame::Syn(stream))
                .unwrap();
            let fin = frames
                .iter()
                .rposition(|f| *f == Frame::Fin(stream))
                .unwrap();
            assert!(syn < fin);
        }
    }
    assert_eq!(Mux::new(MuxRole::Client).poll_transmit(0), None);
}

#[test]
fn a_frame_is_cut_to_end_with_its_packet() {
    let (mut session, stream) = client_with_stream();
    session.send(stream, Bytes::from(vec![7; 3000])).unwrap();
    for expected in [1024, 1024, 3000 + 3 * 8 - 2048] {
        let packet = session.poll_transmit(1024).unwrap();
        assert_eq!(packet.len(), expected);
        assert_eq!(parse(packet).len(), 1);
    }
}

#[test]
fn large_polls_use_frames_of_the_agents_size() {
    let (mut session, stream) = client_with_stream();
    session.send(stream, Bytes::from(vec![7; 100_000])).unwrap();
    let sizes = drain(&mut session, usize::MAX)
        .into_iter()
        .map(|frame| match frame {
            Frame::Psh { data, .. } => data.len(),
            other => panic!("{other:?}"),
        });
    assert_eq!(sizes.collect::<Vec<_>>(), [32_768, 32_768, 32_768, 1696]);
}

#[test]
fn input_may_be_split_anywhere_and_data_does_not_wait_for_its_frame() {
    let frames = [
        Frame::Syn(id(3)),
        psh(3, b"abcdefgh"),
        Frame::Nop(id(0)),
        Frame::Syn(id(5)),
        psh(5, b""),
        psh(5, b"xy"),
        Frame::Fin(id(3)),
    ];
    let bytes = wire(&frames);
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            let mut session = Mux::new(MuxRole::Server);
            let mut seen = Vec::new();
            for part in [0..first, first..second, second..bytes.len()] {
                let end = part.end;
                session.handle_input(bytes.slice(part)).unwrap();
                seen.extend(events(&mut session));
                // The eight data bytes of stream 3 are at 16..24: all of those received are
                // returned.
                let got = data_of(&seen, 3).len();
                assert_eq!(got, end.clamp(16, 24) - 16);
            }
            assert_eq!(data_of(&seen, 3), b"abcdefgh");
            assert_eq!(data_of(&seen, 5), b"xy");
            let rest: Vec<_> = seen
                .into_iter()
                .filter(|e| !matches!(e, MuxEvent::Data { .. }))
                .collect();
            let expected = [
                MuxEvent::Opened(id(3)),
                MuxEvent::Opened(id(5)),
                MuxEvent::Finished(id(3)),
            ];
            assert_eq!(rest, expected);
        }
    }
}

fn data_of(events: &[MuxEvent], n: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for event in events {
        if let MuxEvent::Data { id: of, data } = event
            && *of == id(n)
        {
            assert!(!data.is_empty());
            out.extend_from_slice(data);
        }
    }
    out
}

#[test]
fn received_data_is_a_slice_of_the_input() {
    let (mut session, stream) = client_with_stream();
    let input = wire(&[psh(stream.get(), b"not copied")]);
    session.handle_input(input.clone()).unwrap();
    let Some(MuxEvent::Data { data, .. }) = session.poll_event() else {
        panic!()
    };
    assert_eq!(data.as_ptr(), input[8..].as_ptr());
}

#[test]
fn the_peers_fin_closes_both_directions_and_is_answered_once() {
    let (mut session, stream) = client_with_stream();
    session
        .send(stream, Bytes::from_static(b"too late"))
        .unwrap();
    let fin = wire(&[psh(3, b"bye"), Frame::Fin(stream)]);
    session.handle_input(fin).unwrap();
    let bye = MuxEvent::Data {
        id: stream,
        data: Bytes::from_static(b"bye"),
    };
    assert_eq!(events(&mut session), [bye, MuxEvent::Finished(stream)]);
    assert_eq!(session.queued(stream), 0);
    assert_eq!(session.open_streams(), 0);
    assert_eq!(
        session.send(stream, Bytes::new()),
        Err(MuxError::NotOpen(stream))
    );
    // Before and after this side's FIN has left, repetitions change nothing.
    let again = wire(&[Frame::Fin(stream), psh(3, b"ghost"), Frame::Fin(stream)]);
    session.handle_input(again.clone()).unwrap();
    assert_eq!(drain(&mut session, 1024), [Frame::Fin(stream)]);
    session.handle_input(again).unwrap();
    session.finish(stream);
    session.abandon(stream);
    let repeated = events(&mut session);
    assert_eq!(repeated, vec![MuxEvent::Closed(stream); 4]);
    assert_eq!(drain(&mut session, 1024), []);
}

#[test]
fn finish_sends_the_queue_first_and_drops_what_comes_after() {
    let (mut session, stream) = client_with_stream();
    session
        .send(stream, Bytes::from_static(b"last words"))
        .unwrap();
    session.finish(stream);
    assert_eq!(
        session.send(stream, Bytes::from_static(b"!")),
        Err(MuxError::NotOpen(stream))
    );
    session.handle_input(wire(&[psh(3, b"unread")])).unwrap();
    assert_eq!(
        drain(&mut session, 1024),
        [psh(3, b"last words"), Frame::Fin(stream)]
    );
    session
        .handle_input(wire(&[psh(3, b"unread"), Frame::Fin(stream)]))
        .unwrap();
    assert_eq!(events(&mut session), [MuxEvent::Closed(stream)]);
    assert_eq!(drain(&mut session, 1024), []);
}

#[test]
fn closing_in_the_middle_of_a_frame_drops_its_rest_and_keeps_the_framing() {
    let (mut session, first) = client_with_stream();
    let second = session.open().unwrap();
    let input = wire(&[psh(3, b"abcdef"), psh(5, b"next")]);
    session.handle_input(input.slice(..11)).unwrap();
    session.finish(first);
    session.handle_input(input.slice(11..)).unwrap();
    let abc = MuxEvent::Data {
        id: first,
        data: Bytes::from_static(b"abc"),
    };
    let next = MuxEvent::Data {
        id: second,
        data: Bytes::from_static(b"next"),
    };
    assert_eq!(events(&mut session), [abc, next]);
}

#[test]
fn the_peers_fin_overtakes_our_finish() {
    let (mut session, stream) = client_with_stream();
    session
        .send(stream, Bytes::from_static(b"nobody reads this"))
        .unwrap();
    session.finish(stream);
    session.handle_input(wire(&[Frame::Fin(stream)])).unwrap();
    assert_eq!(events(&mut session), [MuxEvent::Closed(stream)]);
    assert_eq!(drain(&mut session, 1024), [Frame::Fin(stream)]);
}

#[test]
fn abandon_drops_the_queue() {
    let (mut session, stream) = client_with_stream();
    session.send(stream, Bytes::from(vec![0; 9000])).unwrap();
    session.abandon(stream);
    assert_eq!(session.queued(stream), 0);
    assert_eq!(drain(&mut session, 1024), [Frame::Fin(stream)]);

    let never_seen = session.open().unwrap();
    session.send(never_seen, Bytes::from_static(b"x")).unwrap();
    session.abandon(never_seen);
    assert!(!session.has_transmit());
    assert_eq!(session.poll_transmit(1024), None);
}

#[test]
fn data_and_fin_of_unknown_streams_are_skipped() {
    let (mut session, _) = client_with_stream();
    let input = wire(&[psh(77, b"who?"), Frame::Fin(id(77)), psh(3, b"ok")]);
    session.handle_input(input).unwrap();
    let ok = MuxEvent::Data {
        id: id(3),
        data: Bytes::from_static(b"ok"),
    };
    assert_eq!(events(&mut session), [ok]);
    assert!(!session.has_transmit());
}

#[test]
fn violations_name_their_place_and_stick() {
    let syn_with_data = FrameError::UnexpectedData {
        command: Command::Syn,
        length: 2,
    };
    let cases = [
        (&[2, 2, 0, 0, 3, 0, 0, 0], FrameError::Version(2)),
        (&[1, 9, 0, 0, 3, 0, 0, 0], FrameError::Command(9)),
        (&[1, 0, 2, 0, 3, 0, 0, 0], syn_with_data),
    ];
    for (bad, source) in cases {
        let (mut session, stream) = client_with_stream();
        session.send(stream, Bytes::from_static(b"x")).unwrap();
        let mut input = wire(&[psh(3, b"ok")]).to_vec();
        let offset = input.len() as u64;
        input.extend_from_slice(bad);
        let expected = MuxError::Frame { offset, source };
        assert!(expected.is_fatal());
        assert_eq!(session.handle_input(input.into()), Err(expected.clone()));
        let ok = MuxEvent::Data {
            id: stream,
            data: Bytes::from_static(b"ok"),
        };
        assert_eq!(
            events(&mut session),
            [ok],
            "what came before it is still delivered"
        );
        assert_eq!(session.handle_input(Bytes::new()), Err(expected.clone()));
        assert_eq!(session.open(), Err(expected.clone()));
        assert_eq!(session.send(stream, Bytes::new()), Err(expected));
        assert!(!session.has_transmit());
        assert_eq!(session.poll_transmit(1024), None);
    }
}

#[test]
fn nobody_opens_streams_that_are_not_theirs() {
    let (mut client, _) = client_with_stream();
    let syn = wire(&[Frame::Syn(id(2))]);
    assert_eq!(
        client.handle_input(syn.clone()),
        Err(MuxError::ForeignSyn {
            id: id(2),
            offset: 0
        })
    );

    let mut server = Mux::new(MuxRole::Server);
    assert_eq!(
        server.handle_input(syn),
        Err(MuxError::ForeignSyn {
            id: id(2),
            offset: 0
        })
    );

    let mut server = Mux::new(MuxRole::Server);
    let twice = wire(&[Frame::Syn(id(3)), Frame::Syn(id(3))]);
    assert_eq!(
        server.handle_input(twice),
        Err(MuxError::DuplicateSyn {
            id: id(3),
            offset: 8
        })
    );
}

#[test]
fn a_keepalive_is_one_nop_however_often_it_is_asked_for() {
    let mut session = Mux::new(MuxRole::Client);
    assert!(!session.has_transmit());
    session.keep_alive();
    session.keep_alive();
    assert!(session.has_transmit());
    let packet = session.poll_transmit(1024).unwrap();
    assert_eq!(packet[..], [1, 3, 0, 0, 0, 0, 0, 0]);
    assert_eq!(session.poll_transmit(1024), None);
    assert!(!session.has_transmit());

    // The other side ignores it.
    let mut server = Mux::new(MuxRole::Server);
    server.handle_input(packet).unwrap();
    assert_eq!(events(&mut server), []);
    assert!(!server.has_transmit());
}

#[test]
fn a_keepalive_goes_ahead_of_data_and_splits_no_frame() {
    for max in 1..40 {
        let (mut session, stream) = client_with_stream();
        let data = b"some bytes that take several packets";
        session.send(stream, Bytes::from_static(data)).unwrap();
        // The first packet may end inside a frame; the NOP has to wait for the rest of it.
        let mut sent = session.poll_transmit(max).unwrap().to_vec();
        session.keep_alive();
        while let Some(packet) = session.poll_transmit(max) {
            assert!(packet.len() <= max);
            sent.extend_from_slice(&packet);
        }
        let mut nops = 0;
        let mut heard = Vec::new();
        for frame in parse(sent.into()) {
            match frame {
                Frame::Nop(of) => {
                    assert_eq!(of, id(0));
                    nops += 1;
                }
                Frame::Psh { data, .. } => heard.extend_from_slice(&data),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((nops, &heard[..]), (1, &data[..]), "max {max}");
    }
    let (mut session, stream) = client_with_stream();
    session.send(stream, Bytes::from_static(b"x")).unwrap();
    session.keep_alive();
    assert_eq!(
        drain(&mut session, 1024),
        [Frame::Nop(id(0)), psh(3, b"x")],
        "in one packet, in front"
    );
}

#[test]
fn a_failed_session_keeps_nothing_alive() {
    let mut session = Mux::new(MuxRole::Client);
    session.keep_alive();
    session
        .handle_input(Bytes::from_static(&[9; 8]))
        .unwrap_err();
    assert!(!session.has_transmit());
    session.keep_alive();
    assert!(!session.has_transmit());
    assert_eq!(session.poll_transmit(1024), None);
}
