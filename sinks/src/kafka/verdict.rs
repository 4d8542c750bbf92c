//! What an error of Kafka means for a delivery, and what a person can do about it.

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode};

/// What an error means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Records that the broker does not take; which of them has to be found out.
    Data,
    /// A person has to do something: what.
    Halt(&'static str),
    /// Another producer has the same transactional id.
    Fenced,
    /// It never left this process.
    NotSent,
    /// Nobody knows whether it arrived.
    Unknown,
}

const AUTHENTICATION: &str =
    "the broker refuses the login: check [sasl] (mechanism, username and password) or the client certificate";
const TOPIC_ACCESS: &str = "the broker denies access: give the user the ACLs Describe and Write on the topic";
const PROGRESS_ACCESS: &str = "transactions need the ACLs Describe and Write on the transactional id, and Describe, Read and Write on the \
     progress topic";

/// What this error means.
pub(super) fn verdict(code: RDKafkaErrorCode) -> Verdict {
    use RDKafkaErrorCode as Code;
    match code {
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidTimestamp => Verdict::Data,

        Code::Authentication | Code::SaslAuthenticationFailed => Verdict::Halt(AUTHENTICATION),
        Code::UnsupportedSASLMechanism => Verdict::Halt(
            "the broker does not offer this mechanism: set sasl.mechanism to one that it has enabled",
        ),
        Code::SSL => Verdict::Halt(
            "TLS fails: check tls.ca_file, the client certificate, and that the port speaks TLS",
        ),
        Code::TopicAuthorizationFailed => Verdict::Halt(TOPIC_ACCESS),
        Code::ClusterAuthorizationFailed => Verdict::Halt(
            "the idempotent producer needs the ACL Write on the topic, and on brokers before Kafka 3.0 also \
             IdempotentWrite on the cluster",
        ),
        Code::TransactionalIdAuthorizationFailed => Verdict::Halt(PROGRESS_ACCESS),
        Code::UnknownTopic | Code::UnknownTopicOrPartition => {
            Verdict::Halt("the topic does not exist: create it, mailtrail never does")
        }
        Code::InvalidTopic => Verdict::Halt("the broker does not take this for the name of a topic"),
        Code::PolicyViolation => Verdict::Halt("a policy of the broker forbids it"),
        Code::InvalidRequiredAcks | Code::UnsupportedForMessageFormat | Code::UnsupportedVersion => {
            Verdict::Halt(
                "the broker is too old or does not do what mailtrail needs; Kafka 2.5 or later does",
            )
        }
        Code::InvalidTransactionTimeout => Verdict::Halt(
            "the broker's transaction.max.timeout.ms is below delivery_timeout: lower delivery_timeout",
        ),
        Code::UnsupportedCompressionType => {
            Verdict::Halt("the broker does not take this compression: set another, or \"none\"")
        }

        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => Verdict::Fenced,

        Code::QueueFull => Verdict::NotSent,
        // What was taken back from the queue may have been sent once and have come back there after a lost connection.
        _ => Verdict::Unknown,
    }
}

/// The code of an error; [`RDKafkaErrorCode::Fail`] when it has none.
pub(super) fn code_of(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)
}

/// What the failures of a batch come to, the most telling one first.
pub(super) fn worst(codes: impl Iterator<Item = RDKafkaErrorCode>) -> Option<(RDKafkaErrorCode, Verdict)> {
    let rank = |verdict: &Verdict| match verdict {
        Verdict::Fenced => 0,
        Verdict::Halt(_) => 1,
        Verdict::Unknown => 2,
        Verdict::Data => 3,
        Verdict::NotSent => 4,
    };
    codes.map(|code| (code, verdict(code))).min_by_key(|(_, verdict)| rank(verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_never_a_refusal() {
        for code in [
            RDKafkaErrorCode::MessageTimedOut,
            RDKafkaErrorCode::PurgeInflight,
            // A broker that has just started does not know its partitions yet.
            RDKafkaErrorCode::UnknownPartition,
            RDKafkaErrorCode::PurgeQueue,
            RDKafkaErrorCode::NotEnoughReplicas,
            RDKafkaErrorCode::NotLeaderForPartition,
            RDKafkaErrorCode::BrokerTransportFailure,
            RDKafkaErrorCode::Fail,
        ] {
            assert_eq!(verdict(code), Verdict::Unknown, "{code:?}");
        }
    }

    #[test]
    fn the_most_telling_failure_decides() {
        use RDKafkaErrorCode as Code;
        let of = |codes: &[Code]| worst(codes.iter().copied()).map(|(code, _)| code);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[Code::QueueFull, Code::MessageTimedOut]), Some(Code::MessageTimedOut));
        assert_eq!(of(&[Code::MessageSizeTooLarge, Code::QueueFull]), Some(Code::MessageSizeTooLarge));
        assert_eq!(
            of(&[Code::MessageTimedOut, Code::TopicAuthorizationFailed]),
            Some(Code::TopicAuthorizationFailed)
        );
    }
}
