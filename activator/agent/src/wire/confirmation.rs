//! How a client confirms a new system: the agent waits, and the client answers.

use serde::{Deserialize, Serialize};

/// What the agent waits for before it keeps a new system.
///
/// First it waits for a new login of the client, which proves that the machine can still be reached. Then it may wait
/// for the client's decision, because the client also looks at the machine from outside, or at other machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// What the client has to repeat in each [`Message`]. Only root on the machine can do something with it.
    pub nonce: String,
    /// How many seconds the agent waits for the new login; 0: it does not wait for one.
    pub window_seconds: u64,
    /// How many seconds the agent waits for the decision; 0: it keeps the new system as soon as the machine is known to
    /// be reachable and healthy.
    pub hold_seconds: u64,
}

/// What a client says to an activation that waits, as JSON on the standard input of `confirm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The nonce of the [`Confirmation`].
    pub nonce: String,
    /// The answer.
    #[serde(rename = "word")]
    pub answer: Answer,
}

/// What a client can answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The client could log in anew.
    Reachable,
    /// The machine keeps the new system.
    Keep,
    /// The machine goes back to the old system, for this reason.
    GoBack(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_json() {
        let message = Message { nonce: "n".to_owned(), answer: Answer::GoBack("why".to_owned()) };
        let json = serde_json::json!({ "nonce": "n", "word": { "go_back": "why" } });
        assert_eq!(serde_json::to_value(&message).unwrap(), json);
    }
}
