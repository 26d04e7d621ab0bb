//! How long a connection waits for a machine, and for which failures to pass.

use std::time::Duration;

use super::SshError;

/// What is waited for, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until the machine can be reached. A refused login is an error at once: the machine runs, and the login is wrong.
    UntilReachable(Duration),
    /// Until the machine lets this login in: it is being made or boots, and its SSH server may start before the keys
    /// are in place.
    UntilLetIn(Duration),
}

impl Wait {
    /// One try. Only a host that closes connections before the login is tried a few times more.
    pub const ONE_TRY: Self = Self::UntilReachable(Duration::ZERO);

    fn limit(self) -> Duration {
        match self {
            Self::UntilReachable(limit) | Self::UntilLetIn(limit) => limit,
        }
    }
}

/// The first and the longest pause after a try that did not reach the machine.
const UNREACHED: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// The first and the longest pause after a refused login. OpenSSH (`PerSourcePenalties`) shuts an address out that is
/// refused often in a short time.
const REFUSED: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(20));

/// The first and the longest pause after a connection was closed before the login. Each is shortened by chance, so
/// that those who were turned away together do not come back together.
const TURNED_AWAY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

/// How often a host is tried again that closed the connection before the login, also where nobody wants to wait.
const QUICK_TRIES: u32 = 7;

/// The tries to log in to one machine so far.
#[derive(Debug)]
pub(super) struct Tries {
    wait: Wait,
    unreached: Duration,
    refused: Duration,
    turned_away: Duration,
    quick: u32,
    /// How often the login was refused, and when the first time.
    refusals: Option<(u32, Duration)>,
}

impl Tries {
    pub(super) fn new(wait: Wait) -> Self {
        Self {
            wait,
            unreached: UNREACHED.0,
            refused: REFUSED.0,
            turned_away: TURNED_AWAY.0,
            quick: 0,
            refusals: None,
        }
    }

    /// How long to pause after a try that failed when `elapsed` had passed since the first one; `None`: it was the
    /// last.
    pub(super) fn pause(&mut self, error: &SshError, elapsed: Duration) -> Option<Duration> {
        if error.is_refusal() {
            let (count, first) = self.refusals.unwrap_or((0, elapsed));
            self.refusals = Some((count + 1, first));
            let Wait::UntilLetIn(limit) = self.wait else { return None };
            let pause = grow(&mut self.refused, REFUSED.1);
            return (elapsed + pause < limit).then_some(pause);
        }
        if error.is_turned_away() && self.quick < QUICK_TRIES {
            self.quick += 1;
            let pause = grow(&mut self.turned_away, TURNED_AWAY.1);
            return Some(pause.mul_f64(0.2 + 0.8 * fastrand::f64()));
        }
        if !error.is_unreachable() {
            return None;
        }
        let pause = grow(&mut self.unreached, UNREACHED.1);
        (elapsed + pause < self.wait.limit()).then_some(pause)
    }

    /// The error of the last try, with what the tries before it were.
    pub(super) fn last(&self, error: SshError, elapsed: Duration) -> SshError {
        match self.refusals {
            Some((count, first)) if count > 1 => {
                let seconds = elapsed.saturating_sub(first).as_secs();
                error.with_evidence(&format!("All {count} logins within {seconds} s were refused."))
            }
            _ => error,
        }
    }
}

/// The pause to make now; the next one is longer.
fn grow(pause: &mut Duration, longest: Duration) -> Duration {
    let now = *pause;
    *pause = (now * 3 / 2).min(longest);
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> SshError {
        SshError::Denied { host: "web".into(), user: "root".into(), reason: "Permission denied".into() }
    }

    fn turned_away() -> SshError {
        SshError::from_stderr("web", "root", "kex_exchange_identification: Connection closed by remote host")
    }

    /// When the tries are made, in seconds, if each fails at once.
    fn tries(wait: Wait, error: &SshError) -> Vec<f64> {
        let mut tries = Tries::new(wait);
        let mut now = Duration::ZERO;
        let mut made = vec![0.0];
        while let Some(pause) = tries.pause(error, now) {
            now += pause;
            made.push(now.as_secs_f64());
        }
        made
    }

    #[test]
    fn a_refused_login_is_tried_again_only_where_keys_may_come_later() {
        let limit = Duration::from_mins(10);
        assert_eq!(tries(Wait::UntilReachable(limit), &refused()).len(), 1);
        assert!(tries(Wait::UntilLetIn(limit), &refused()).len() > 20);
        assert_eq!(tries(Wait::UntilLetIn(Duration::ZERO), &refused()).len(), 1);
    }

    #[test]
    fn refused_logins_do_not_make_openssh_shut_us_out() {
        // sshd_config(5): five seconds for each, added up; above fifteen the address is shut out.
        let mut penalty = 0.0;
        let mut last = 0.0;
        for now in tries(Wait::UntilLetIn(Duration::from_mins(10)), &refused()) {
            penalty = f64::max(0.0, penalty - (now - last)) + 5.0;
            last = now;
            assert!(penalty < 15.0, "{penalty} at {now}");
        }
    }

    #[test]
    fn who_is_turned_away_comes_back_a_few_times_and_at_other_moments() {
        let made = [(); 20].map(|()| tries(Wait::ONE_TRY, &turned_away()));
        for times in &made {
            assert_eq!(times.len(), 8, "{times:?}");
            assert!(times.last().is_some_and(|last| *last < 20.0), "{times:?}");
        }
        assert!(made.iter().any(|times| times != &made[0]));
        let unreachable =
            SshError::from_stderr("web", "root", "connect to host web port 22: Connection refused");
        assert_eq!(tries(Wait::ONE_TRY, &unreachable).len(), 1);
    }

    #[test]
    fn the_last_error_says_that_it_was_refused_all_the_time() {
        let mut tries = Tries::new(Wait::UntilLetIn(Duration::from_secs(10)));
        assert!(tries.pause(&refused(), Duration::from_secs(1)).is_some());
        assert!(tries.pause(&refused(), Duration::from_secs(9)).is_none());
        let text = tries.last(refused(), Duration::from_secs(9)).to_string();
        assert!(text.contains("All 2 logins within 8 s were refused"), "{text}");
    }
}
