//! Counts findings and makes a grade of them.

use super::run::{Finding, Verdict};

/// The counts of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Checks that passed.
    pub passed: usize,
    /// Checks that failed.
    pub failed: usize,
    /// Checks that were not carried out.
    pub skipped: usize,
}

/// Counts by group.
#[derive(Debug, Default)]
pub struct Grade {
    groups: Vec<(&'static str, Tally)>,
}

impl Grade {
    /// Counts a finding.
    pub fn count(&mut self, finding: &Finding<'_>) {
        self.add(finding.check.group, &finding.verdict);
    }

    fn add(&mut self, group: &'static str, verdict: &Verdict) {
        let index = match self.groups.iter().position(|(known, _)| *known == group) {
            Some(index) => index,
            None => {
                self.groups.push((group, Tally::default()));
                self.groups.len() - 1
            }
        };
        let tally = &mut self.groups[index].1;
        match verdict {
            Verdict::Passed => tally.passed += 1,
            Verdict::Failed { .. } => tally.failed += 1,
            Verdict::Skipped(_) => tally.skipped += 1,
        }
    }

    /// The groups in the order of `known`.
    pub fn groups(&self, known: &[&'static str]) -> Vec<(&'static str, Tally)> {
        let mut groups = self.groups.clone();
        groups.sort_by_key(|(group, _)| known.iter().position(|name| name == group));
        groups
    }

    /// All groups together.
    pub fn total(&self) -> Tally {
        self.groups.iter().fold(Tally::default(), |sum, (_, tally)| Tally {
            passed: sum.passed + tally.passed,
            failed: sum.failed + tally.failed,
            skipped: sum.skipped + tally.skipped,
        })
    }

    /// 0 to 100: the mean over the groups of what each has passed, so that a group of two hundred cases does not weigh more than one of ten.
    /// 100 only when nothing failed. `None`: nothing was carried out.
    pub fn points(&self) -> Option<u32> {
        let shares: Vec<f64> = self
            .groups
            .iter()
            .filter(|(_, tally)| tally.passed + tally.failed > 0)
            .map(|(_, tally)| tally.passed as f64 / (tally.passed + tally.failed) as f64)
            .collect();
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        match (shares.is_empty(), self.total().failed) {
            (true, _) => None,
            (false, 0) => Some(100),
            (false, _) => Some(((mean * 100.0) as u32).min(99)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Verdict {
        Verdict::Failed { what: String::new(), transcript: Vec::new() }
    }

    #[test]
    fn every_group_weighs_the_same() {
        let mut grade = Grade::default();
        assert_eq!(grade.points(), None);
        grade.add("skipped", &Verdict::Skipped("why"));
        assert_eq!(grade.points(), None, "nothing was carried out");
        (0..300).for_each(|_| grade.add("large", &Verdict::Passed));
        assert_eq!(grade.points(), Some(100));
        grade.add("small", &failed());
        grade.add("small", &Verdict::Passed);
        assert_eq!(grade.points(), Some(75));
        assert_eq!(grade.total(), Tally { passed: 301, failed: 1, skipped: 1 });
        let names: Vec<&str> = grade.groups(&["small", "large", "skipped"]).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["small", "large", "skipped"]);
    }

    #[test]
    fn one_failure_among_thousands_is_not_full_marks() {
        let mut grade = Grade::default();
        (0..10_000).for_each(|_| grade.add("large", &Verdict::Passed));
        grade.add("large", &failed());
        assert_eq!(grade.points(), Some(99));
    }
}
