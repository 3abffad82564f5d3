//! The payload of an acknowledgement.
//!
//! There is one for every data message, so its JSON is written and read by hand in the form both
//! real programs use (these fields, in this order, without spaces); any other form goes through
//! serde. Tests check that both give the same result.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::frame::AgentMessage;
use crate::id::{MessageId, SequenceNumber};
use crate::kinds::MessageType;

/// Payload of an acknowledgement, which names one data message that has arrived. Acknowledgements
/// are for single messages, never cumulative.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledge {
    /// The type of the data message.
    #[serde(rename = "AcknowledgedMessageType")]
    pub message_type: MessageType,
    /// Its id.
    #[serde(rename = "AcknowledgedMessageId")]
    pub id: MessageId,
    /// Its number.
    #[serde(rename = "AcknowledgedMessageSequenceNumber")]
    pub sequence: SequenceNumber,
    /// Always true in practice.
    #[serde(rename = "IsSequentialMessage")]
    pub is_sequential: bool,
}

const TYPE: &[u8] = br#"{"AcknowledgedMessageType":""#;
const ID: &[u8] = br#"","AcknowledgedMessageId":""#;
const NUMBER: &[u8] = br#"","AcknowledgedMessageSequenceNumber":"#;
const SEQUENTIAL: &[u8] = br#","IsSequentialMessage":true}"#;
/// Length of a UUID's text.
const ID_LENGTH: usize = 36;
/// Digits of the largest 64-bit number.
const MAX_DIGITS: usize = 20;

impl Acknowledge {
    /// Creates the acknowledgement of a data message.
    pub fn of(message: &AgentMessage) -> Self {
        Self {
            message_type: message.message_type.clone(),
            id: message.id,
            sequence: message.sequence,
            is_sequential: true,
        }
    }

    /// Returns the JSON text, fields in the order of the real programs.
    pub fn to_json(&self) -> Bytes {
        if !self.is_sequential || matches!(self.message_type, MessageType::Other(_)) {
            return crate::handshake::to_json(self);
        }
        let text = AckText::new(self.message_type.as_str(), self.id, self.sequence);
        let mut out = Vec::with_capacity(text.len());
        text.write(&mut out);
        Bytes::from(out)
    }

    /// Parses the JSON text.
    ///
    /// # Errors
    /// When it is not this object.
    pub fn from_json(payload: &[u8]) -> Result<Self, serde_json::Error> {
        match read(payload) {
            Some(ack) => Ok(ack),
            None => serde_json::from_slice(payload),
        }
    }
}

/// Text of an acknowledgement, ready to be written. The type's name needs no escapes.
pub(crate) struct AckText<'a> {
    message_type: &'a str,
    id: MessageId,
    digits: [u8; MAX_DIGITS],
    first_digit: usize,
}

impl<'a> AckText<'a> {
    pub(crate) fn new(message_type: &'a str, id: MessageId, sequence: SequenceNumber) -> Self {
        let mut digits = [b'0'; MAX_DIGITS];
        let mut rest = sequence.get();
        let mut first_digit = MAX_DIGITS;
        for (place, digit) in digits.iter_mut().enumerate().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            first_digit = place;
            if rest == 0 {
                break;
            }
        }
        Self {
            message_type,
            id,
            digits,
            first_digit,
        }
    }

    pub(crate) fn len(&self) -> usize {
        let fixed = TYPE.len() + ID.len() + ID_LENGTH + NUMBER.len() + SEQUENTIAL.len();
        fixed + self.message_type.len() + MAX_DIGITS - self.first_digit
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(TYPE);
        out.extend_from_slice(self.message_type.as_bytes());
        out.extend_from_slice(ID);
        out.extend_from_slice(&self.id.to_text());
        out.extend_from_slice(NUMBER);
        out.extend_from_slice(self.digits.get(self.first_digit..).unwrap_or_default());
        out.extend_from_slice(SEQUENTIAL);
    }
}

/// Parses the usual form; `None` for every other, valid or not.
fn read(payload: &[u8]) -> Option<Acknowledge> {
    let rest = payload.strip_prefix(TYPE)?;
    let message_type = [MessageType::InputStreamData, MessageType::OutputStreamData]
        .into_iter()
        .find(|kind| rest.starts_with(kind.as_str().as_bytes()))?;
    let rest = rest.get(message_type.as_str().len()..)?.strip_prefix(ID)?;
    let (id, rest) = rest.split_first_chunk::<ID_LENGTH>()?;
    let id = MessageId::from_text(id)?;
    let digits = rest.strip_prefix(NUMBER)?.strip_suffix(SEQUENTIAL)?;
    Some(Acknowledge {
        message_type,
        id,
        sequence: SequenceNumber::new(number(digits)?),
        is_sequential: true,
    })
}

/// Parses a number as JSON allows it, without a leading zero, that certainly fits 64 bits.
fn number(digits: &[u8]) -> Option<u64> {
    let leading_zero = digits.len() > 1 && digits.first() == Some(&b'0');
    if digits.is_empty() || digits.len() >= MAX_DIGITS || leading_zero {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let value = digit.wrapping_sub(b'0');
        (value < 10).then(|| number * 10 + u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(message_type: MessageType, sequence: u64) -> Acknowledge {
        Acknowledge {
            message_type,
            id: MessageId::new(0xe2b6_00b9_d065_43c3_95b0_048b_7be6_704f),
            sequence: SequenceNumber::new(sequence),
            is_sequential: true,
        }
    }

    fn all() -> Vec<Acknowledge> {
        let kinds = [
            MessageType::InputStreamData,
            MessageType::OutputStreamData,
            MessageType::Acknowledge,
            MessageType::Other("a\"b\\".to_owned()),
        ];
        let mut numbers = vec![0, u64::MAX, u64::MAX - 1, 72_623_859_790_382_856];
        numbers.extend((0..20).flat_map(|n| [10_u64.pow(n), 10_u64.pow(n) - 1]));
        let mut all = Vec::new();
        for kind in kinds {
            all.extend(numbers.iter().map(|number| ack(kind.clone(), *number)));
        }
        let mut not_sequential = ack(MessageType::InputStreamData, 7);
        not_sequential.is_sequential = false;
        all.push(not_sequential);
        all
    }

    #[test]
    fn round_trip_and_every_cut_is_refused() {
        let ack = ack(MessageType::InputStreamData, 72_623_859_790_382_856);
        let json = ack.to_json();
        let expected = concat!(
            r#"{"AcknowledgedMessageType":"input_stream_data","#,
            r#""AcknowledgedMessageId":"e2b600b9-d065-43c3-95b0-048b7be6704f","#,
            r#""AcknowledgedMessageSequenceNumber":72623859790382856,"#,
            r#""IsSequentialMessage":true}"#
        );
        assert_eq!(json, expected);
        assert_eq!(Acknowledge::from_json(&json).unwrap(), ack);
        for cut in 0..json.len() {
            assert!(Acknowledge::from_json(&json[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn the_hand_written_form_is_that_of_serde() {
        for ack in all() {
            let json = ack.to_json();
            assert_eq!(json, crate::handshake::to_json(&ack));
            assert_eq!(Acknowledge::from_json(&json).unwrap(), ack);
        }
        assert!(read(&ack(MessageType::InputStreamData, 5).to_json()).is_some());
    }

    /// Replaces every byte of the usual text with every other: whenever the fast parser accepts the
    /// text, serde gives the same result.
    #[test]
    fn the_short_way_reads_nothing_that_serde_does_not() {
        let good = ack(MessageType::OutputStreamData, 120).to_json();
        let mut short = 0;
        for at in 0..good.len() {
            for byte in 0..=255 {
                let mut text = good.to_vec();
                text[at] = byte;
                let serde = serde_json::from_slice::<Acknowledge>(&text).ok();
                short += usize::from(read(&text).is_some());
                if let Some(ack) = read(&text) {
                    assert_eq!(
                        Some(&ack),
                        serde.as_ref(),
                        "{}",
                        String::from_utf8_lossy(&text)
                    );
                }
                assert_eq!(Acknowledge::from_json(&text).ok(), serde);
            }
        }
        assert!(short > 800, "{short}");
        for odd in ["012", "-1", "1.0", "1e2", "18446744073709551616", " 5", ""] {
            let text = String::from_utf8(good.to_vec()).unwrap();
            let text = text.replace("120", odd);
            let serde = serde_json::from_slice::<Acknowledge>(text.as_bytes()).ok();
            assert_eq!(Acknowledge::from_json(text.as_bytes()).ok(), serde, "{odd}");
        }
    }

    #[test]
    fn other_forms_of_the_same_object_are_read() {
        let text = concat!(
            r#"{ "IsSequentialMessage": false, "New": [1], "#,
            r#""AcknowledgedMessageSequenceNumber": 3, "#,
            r#""AcknowledgedMessageId": "E2B600B9-D065-43C3-95B0-048B7BE6704F", "#,
            r#""AcknowledgedMessageType": "input_stream_data" }"#
        );
        let mut expected = ack(MessageType::InputStreamData, 3);
        expected.is_sequential = false;
        assert_eq!(Acknowledge::from_json(text.as_bytes()).unwrap(), expected);
    }
}
