//! Medians and their spread. A shared machine yields outliers, which a mean would follow.

/// The middle value, or the mean of the two in the middle. `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(*upper);
    }
    let lower = sorted.get(sorted.len() / 2 - 1)?;
    Some((lower + upper) / 2.0)
}

/// Median absolute deviation: how far a run typically lies from the median, in the same unit.
pub(crate) fn deviation(values: &[f64]) -> Option<f64> {
    let middle = median(values)?;
    let distances: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    median(&distances)
}

/// The median over rounds of `ours / peer`. Both ran within seconds of each other in a round, so
/// what slowed the machine in that round slowed both and cancels out; it would not in a ratio of
/// medians.
pub(crate) fn paired_ratio(ours: &[f64], peer: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = ours
        .iter()
        .zip(peer)
        .filter(|(_, peer)| **peer > 0.0)
        .map(|(ours, peer)| ours / peer)
        .collect();
    median(&ratios)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_middle_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[7.0]), Some(7.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn one_wild_run_moves_neither_median_nor_deviation() {
        let runs = [20.0, 21.0, 22.0, 23.0, 900.0];
        assert_eq!(median(&runs), Some(22.0));
        assert_eq!(deviation(&runs), Some(1.0));
    }

    #[test]
    fn a_slow_round_cancels_out_of_the_paired_ratio() {
        // The machine was three times slower in the second round, for both.
        let ours = [10.0, 30.0, 10.0];
        let peer = [40.0, 120.0, 40.0];
        assert_eq!(paired_ratio(&ours, &peer), Some(0.25));
    }

    #[test]
    fn a_peer_that_measured_nothing_has_no_ratio() {
        assert_eq!(paired_ratio(&[10.0], &[0.0]), None);
        assert_eq!(paired_ratio(&[], &[]), None);
    }
}
