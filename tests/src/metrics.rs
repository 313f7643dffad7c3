//! Reading what `/metrics` says.

/// All values of a metric whose labels, as they are printed, have `label` in them, together.
pub(crate) fn sum_of(text: &str, name: &str, label: &str) -> f64 {
    let value = |line: &str| {
        let labels = line.strip_prefix(name)?.strip_prefix('{')?;
        let (labels, value) = labels.split_once("} ")?;
        value.parse::<f64>().ok().filter(|_| labels.contains(label))
    };
    text.lines().filter_map(value).sum()
}
