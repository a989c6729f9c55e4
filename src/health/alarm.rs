//! When an urgent finding is worth an alert: when it begins, at most once in `limits::ALERT_PAUSE` of its kind, and once when it is over.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Finding;
use crate::limits;

/// What is new since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// These have begun.
    pub begun: Vec<Finding>,
    /// These were told of and are over.
    pub over: Vec<Finding>,
}

impl News {
    /// There is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.begun.is_empty() && self.over.is_empty()
    }
}

/// The findings that are on, by kind. Only from one thread.
#[derive(Debug, Default)]
pub struct Alarm {
    kinds: BTreeMap<&'static str, State>,
}

#[derive(Debug)]
struct State {
    finding: Finding,
    seen_ms: u64,
    /// It has begun, was told of, and is not over.
    is_told: bool,
    /// When its begin was last told.
    told_ms: Option<u64>,
}

impl Alarm {
    /// Looks at what is urgent now; gives what is to be told.
    pub fn look(&mut self, urgent: Vec<Finding>, now_ms: u64) -> News {
        let mut news = News::default();
        for finding in urgent {
            let state = self.kinds.entry(finding.name()).or_insert_with(|| State {
                finding: finding.clone(),
                seen_ms: now_ms,
                is_told: false,
                told_ms: None,
            });
            state.seen_ms = now_ms;
            state.finding = finding;
            if !state.is_told && state.told_ms.is_none_or(|told| has_passed(told, limits::ALERT_PAUSE, now_ms)) {
                state.is_told = true;
                state.told_ms = Some(now_ms);
                news.begun.push(state.finding.clone());
            }
        }
        for state in self.kinds.values_mut() {
            if state.is_told && has_passed(state.seen_ms, limits::ALERT_CALM, now_ms) {
                state.is_told = false;
                news.over.push(state.finding.clone());
            }
        }
        news
    }

    /// An alert could not be sent: what it told of is told again, after `limits::ALERT_CALM`.
    pub fn untell(&mut self, news: &News, now_ms: u64) {
        for finding in &news.begun {
            if let Some(state) = self.kinds.get_mut(finding.name()) {
                state.is_told = false;
                state.told_ms = (now_ms + millis(limits::ALERT_CALM)).checked_sub(millis(limits::ALERT_PAUSE));
            }
        }
        for finding in &news.over {
            if let Some(state) = self.kinds.get_mut(finding.name()).filter(|state| !state.is_told) {
                state.is_told = true;
                state.seen_ms = now_ms;
            }
        }
    }
}

fn has_passed(since_ms: u64, pause: Duration, now_ms: u64) -> bool {
    now_ms >= since_ms + millis(pause)
}

fn millis(pause: Duration) -> u64 {
    pause.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Finding = Finding::MemoryFull { limit_bytes: 1 };

    fn told(alarm: &mut Alarm, is_full: bool, second: u64) -> (usize, usize) {
        let urgent = if is_full { vec![FULL] } else { Vec::new() };
        let news = alarm.look(urgent, second * 1000);
        (news.begun.len(), news.over.len())
    }

    #[test]
    fn a_begin_is_told_at_once_and_its_end_when_it_has_been_calm() {
        let mut alarm = Alarm::default();
        assert_eq!(told(&mut alarm, true, 0), (1, 0));
        assert!((1..60).all(|second| told(&mut alarm, true, second) == (0, 0)));
        assert!((60..89).all(|second| told(&mut alarm, false, second) == (0, 0)));
        assert_eq!(told(&mut alarm, false, 89), (0, 1));
        assert!((90..2000).all(|second| told(&mut alarm, false, second) == (0, 0)));
        assert_eq!(told(&mut alarm, true, 2000), (1, 0));
    }

    #[test]
    fn one_that_comes_and_goes_is_told_rarely_and_never_forgotten() {
        let mut alarm = Alarm::default();
        // On for 5 s, off for 60 s, for a day.
        let told: Vec<(usize, usize)> = (0..86_400).map(|second| told(&mut alarm, second % 65 < 5, second)).collect();
        let begun = told.iter().filter(|news| news.0 > 0).count();
        let over = told.iter().filter(|news| news.1 > 0).count();
        assert!((100..=144).contains(&begun), "{begun}");
        assert_eq!(begun, over);
        // It comes back within the pause and stays: told when the pause is over.
        let mut alarm = Alarm::default();
        alarm.look(vec![FULL], 0);
        assert_eq!(alarm.look(Vec::new(), 60_000).over, [FULL]);
        let again: Vec<u64> =
            (61..1000).filter(|second| !alarm.look(vec![FULL], second * 1000).begun.is_empty()).collect();
        assert_eq!(again, [600]);
    }

    #[test]
    fn what_could_not_be_sent_is_told_again() {
        let mut alarm = Alarm::default();
        let begun = alarm.look(vec![FULL], 1_000_000);
        alarm.untell(&begun, 1_010_000);
        assert!(alarm.look(vec![FULL], 1_015_000).is_empty());
        assert_eq!(alarm.look(vec![FULL], 1_040_000).begun, [FULL]);
        let over = alarm.look(Vec::new(), 1_100_000);
        assert_eq!(over.over, [FULL]);
        alarm.untell(&over, 1_110_000);
        assert!(alarm.look(Vec::new(), 1_115_000).is_empty());
        assert_eq!(alarm.look(Vec::new(), 1_140_000).over, [FULL]);
        // At the very beginning there is no pause to wait for.
        let mut alarm = Alarm::default();
        let begun = alarm.look(vec![FULL], 0);
        alarm.untell(&begun, 0);
        assert_eq!(alarm.look(vec![FULL], 5_000).begun, [FULL]);
    }

    #[test]
    fn kinds_do_not_touch_each_other() {
        let mut alarm = Alarm::default();
        alarm.look(vec![FULL], 0);
        let other = Finding::SavesFail { for_ms: 1 };
        assert_eq!(alarm.look(vec![FULL, other.clone()], 1000), News { begun: vec![other], over: vec![] });
    }
}
