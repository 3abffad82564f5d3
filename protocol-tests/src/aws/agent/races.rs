//! Which of the races between HandshakeComplete and the agent's readiness come up in a session.
//!
//! The real agent shows them by chance. Here they come up in a share of the sessions that is larger
//! than the real one, by the number of the session: a run that fails fails again.

use std::time::Duration;

use super::AgentSettings;

/// The races of a fast link; sessions with the same seed and number have the same ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Races {
    /// Changes which sessions they come up in.
    pub seed: u64,
}

impl Default for Races {
    fn default() -> Self {
        Self { seed: 20_261_130 }
    }
}

impl Races {
    /// Adds those of the session with this number: in a quarter of the sessions the first stream
    /// message is acknowledged and thrown away, in a quarter one or two are dropped without a word, and
    /// in an eighth all that come within 20 to 50 ms.
    pub(super) fn come_up(self, number: u64, settings: &mut AgentSettings) {
        let mut random = self.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut next = |below: u64| {
            // splitmix64
            random = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = random;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (z ^ (z >> 31)) % below
        };
        if next(4) == 0 {
            settings.discard_messages += 1;
        }
        match next(8) {
            0 => settings.not_ready_for += Duration::from_millis(20 + next(31)),
            1 | 2 => settings.not_ready_messages += if next(2) == 0 { 1 } else { 2 },
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn races_come_up_in_their_share_and_again_in_the_same_sessions() {
        let run = |seed| -> Vec<AgentSettings> {
            let session = |number| {
                let mut settings = AgentSettings::default();
                Races { seed }.come_up(number, &mut settings);
                settings
            };
            (0..1_000).map(session).collect()
        };
        let sessions = run(1);
        assert!(sessions == run(1));
        assert!(sessions != run(2));
        let count = |is: fn(&AgentSettings) -> bool| sessions.iter().filter(|s| is(s)).count();
        let discards = count(|s| s.discard_messages == 1);
        assert!((200..300).contains(&discards), "{discards}");
        let drops = count(|s| s.not_ready_messages > 0);
        assert!((200..300).contains(&drops), "{drops}");
        let late = count(|s| !s.not_ready_for.is_zero());
        assert!((90..160).contains(&late), "{late}");
    }
}
