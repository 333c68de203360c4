/// When a piece of memory is needed, from its first step to its last, and how long it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    pub first: usize,
    pub last: usize,
    pub len: usize,
}

/// Where each piece may lie so that none overlaps another that is needed at the same time, and how long all are together.
///
/// The longest are placed first, each at the lowest place that is free.
pub(super) fn assign(needs: &[Need]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..needs.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(needs[*i].len));
    let mut starts = vec![0; needs.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut total = 0;
    for i in order {
        let need = &needs[i];
        let mut busy: Vec<(usize, usize)> = placed
            .iter()
            .filter(|other| needs[**other].first <= need.last && need.first <= needs[**other].last)
            .map(|other| (starts[*other], starts[*other] + needs[*other].len))
            .collect();
        busy.sort_unstable();
        let mut start = 0;
        for (from, to) in busy {
            if start + need.len <= from {
                break;
            }
            start = start.max(to);
        }
        starts[i] = start;
        total = total.max(start + need.len);
        placed.push(i);
    }
    (starts, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_at_once_does_not_overlap() {
        let need = |first, last, len| Need { first, last, len };
        let needs = [need(0, 1, 10), need(1, 2, 30), need(2, 3, 10), need(0, 3, 5), need(4, 5, 40)];
        let (starts, total) = assign(&needs);
        for (i, a) in needs.iter().enumerate() {
            for (j, b) in needs.iter().enumerate().skip(i + 1) {
                let together = a.first <= b.last && b.first <= a.last;
                let apart = starts[i] + a.len <= starts[j] || starts[j] + b.len <= starts[i];
                assert!(!together || apart, "{a:?} at {} and {b:?} at {}", starts[i], starts[j]);
            }
        }
        assert_eq!(total, 45, "pieces that are not needed at once share memory");
    }
}
