//! Boxes in rows, each below what feeds it, after [Sugiyama et al., 1981](https://doi.org/10.1109/TSMC.1981.4308636):
//! rows by the longest way from above, an order in each row by the mean place of neighbors, then places near the
//! neighbors' middle.

/// Where boxes stand and lines run, in pixels.
#[derive(Debug, Default)]
pub struct Layout {
    /// The upper left corner of each box.
    pub boxes: Vec<[f32; 2]>,
    /// The corners of each edge's line, from the lower end of one box to the upper end of another.
    pub lines: Vec<Vec<[f32; 2]>>,
    /// Width and height of all.
    pub size: [f32; 2],
}

/// A box, or the place where a line passes a row.
struct Place {
    width: f32,
    height: f32,
    row: usize,
    /// The middle.
    x: f32,
    above: Vec<usize>,
    below: Vec<usize>,
    is_box: bool,
}

/// Between boxes beside each other.
const BESIDE: f32 = 18.0;

/// Width of a line that passes a row.
const PASS: f32 = 6.0;

/// Lays out boxes of `[width, height]` and the edges between them; `order` has each box after those that feed it. `gap`
/// is between rows.
pub fn lay_out(sizes: &[[f32; 2]], edges: &[(usize, usize)], order: &[usize], gap: f32) -> Layout {
    let mut rows_of = vec![0; sizes.len()];
    for &vertex in order {
        let above = edges.iter().filter(|edge| edge.1 == vertex).map(|edge| rows_of[edge.0] + 1);
        rows_of[vertex] = above.max().unwrap_or(0);
    }
    let mut places: Vec<Place> = Vec::new();
    for (&[width, height], &row) in sizes.iter().zip(&rows_of) {
        places.push(Place { width, height, row, x: 0.0, above: vec![], below: vec![], is_box: true });
    }
    let mut ways = Vec::with_capacity(edges.len());
    for &(from, to) in edges {
        let mut way = vec![from];
        for row in rows_of[from] + 1..rows_of[to] {
            way.push(places.len());
            places.push(Place { width: PASS, height: 0.0, row, x: 0.0, above: vec![], below: vec![], is_box: false });
        }
        way.push(to);
        for pair in way.windows(2) {
            places[pair[0]].below.push(pair[1]);
            places[pair[1]].above.push(pair[0]);
        }
        ways.push(way);
    }
    let mut rows = vec![Vec::new(); rows_of.iter().max().map_or(0, |row| row + 1)];
    for (number, place) in places.iter().enumerate() {
        rows[place.row].push(number);
    }
    order_rows(&places, &mut rows);
    place_rows(&mut places, &rows);

    // Heights.
    let heights = rows.iter().map(|row| row.iter().map(|&place| places[place].height).fold(0.0, f32::max));
    let heights: Vec<f32> = heights.collect();
    let mut tops = Vec::with_capacity(rows.len());
    let mut y = 0.0;
    for height in &heights {
        tops.push(y);
        y += height + gap;
    }
    let left = places.iter().map(|place| place.x - place.width / 2.0).fold(f32::INFINITY, f32::min);
    let right = places.iter().map(|place| place.x + place.width / 2.0).fold(f32::NEG_INFINITY, f32::max);
    places.iter_mut().for_each(|place| place.x -= left);
    let top_of = |place: &Place| tops[place.row] + (heights[place.row] - place.height) / 2.0;
    let line = |(edge, way): (&(usize, usize), &Vec<usize>)| {
        let mut points = Vec::with_capacity(2 * way.len());
        for &number in way {
            let place = &places[number];
            let (top, bottom) = (top_of(place), top_of(place) + place.height);
            match place.is_box {
                true if number == edge.0 => points.push([place.x, bottom]),
                true => points.push([entry(edges, &ways, &places, *edge), top]),
                false => points.extend([[place.x, tops[place.row]], [place.x, tops[place.row] + heights[place.row]]]),
            }
        }
        points
    };
    Layout {
        boxes: places[..sizes.len()].iter().map(|place| [place.x - place.width / 2.0, top_of(place)]).collect(),
        lines: edges.iter().zip(&ways).map(line).collect(),
        size: [if rows.is_empty() { 0.0 } else { right - left }, (y - gap).max(0.0)],
    }
}

/// Where a line enters its box: those that enter the same one stand beside each other, in the order they come from.
fn entry(edges: &[(usize, usize)], ways: &[Vec<usize>], places: &[Place], edge: (usize, usize)) -> f32 {
    let target = &places[edge.1];
    let entering = edges.iter().zip(ways).filter(|(other, _)| other.1 == edge.1);
    let mut from: Vec<_> = entering.map(|(other, way)| (places[way[way.len() - 2]].x, *other)).collect();
    from.sort_by(|a, b| a.0.total_cmp(&b.0));
    let count = from.len();
    let at = from.iter().position(|(_, other)| *other == edge).unwrap_or(0);
    let room = (target.width * 0.7).min(24.0 * (count - 1) as f32);
    match count {
        1 => target.x,
        _ => target.x - room / 2.0 + room * at as f32 / (count - 1) as f32,
    }
}

/// Puts each row in the order of its neighbors' mean place, down and up by turns, and keeps what crosses least.
fn order_rows(places: &[Place], rows: &mut Vec<Vec<usize>>) {
    let mut at = vec![0.0_f32; places.len()];
    let note = |row: &[usize], at: &mut [f32]| {
        row.iter().enumerate().for_each(|(number, &place)| at[place] = number as f32);
    };
    rows.iter().for_each(|row| note(row, &mut at));
    let mut best = (crossings(places, rows, &at), rows.clone());
    for sweep in 0..8 {
        let down = sweep % 2 == 0;
        let numbers: Vec<usize> = if down { (0..rows.len()).collect() } else { (0..rows.len()).rev().collect() };
        for number in numbers {
            let mean = |place: &usize| {
                let near = if down { &places[*place].above } else { &places[*place].below };
                let sum: f32 = near.iter().map(|&near| at[near]).sum();
                if near.is_empty() { at[*place] } else { sum / near.len() as f32 }
            };
            let mut row: Vec<_> = rows[number].iter().map(|place| (mean(place), *place)).collect();
            row.sort_by(|a, b| a.0.total_cmp(&b.0));
            rows[number] = row.into_iter().map(|(_, place)| place).collect();
            note(&rows[number], &mut at);
        }
        let crossed = crossings(places, rows, &at);
        if crossed < best.0 {
            best = (crossed, rows.clone());
        }
    }
    *rows = best.1;
}

/// How often lines cross between neighboring rows.
fn crossings(places: &[Place], rows: &[Vec<usize>], at: &[f32]) -> usize {
    let mut crossed = 0;
    for row in rows {
        let lines: Vec<_> =
            row.iter().flat_map(|&from| places[from].below.iter().map(move |&to| (at[from], at[to]))).collect();
        for (number, a) in lines.iter().enumerate() {
            crossed += lines[number + 1..].iter().filter(|b| (a.0 - b.0) * (a.1 - b.1) < 0.0).count();
        }
    }
    crossed
}

/// Puts what stands in each row as near to the middle of its neighbors as their order lets it.
fn place_rows(places: &mut [Place], rows: &[Vec<usize>]) {
    for row in rows {
        let mut x = 0.0;
        for &place in row {
            places[place].x = x + places[place].width / 2.0;
            x += places[place].width + BESIDE;
        }
        row.iter().for_each(|&place| places[place].x -= x / 2.0);
    }
    for sweep in 0..24 {
        let down = sweep % 2 == 0;
        let numbers: Vec<usize> = if down { (0..rows.len()).collect() } else { (0..rows.len()).rev().collect() };
        for number in numbers {
            let wishes = rows[number].iter().map(|&place| {
                let near = if down { &places[place].above } else { &places[place].below };
                let sum: f32 = near.iter().map(|&near| places[near].x).sum();
                // Lines are kept straight first.
                let weight = if places[place].is_box { 1.0 } else { 4.0 };
                if near.is_empty() { (places[place].x, 0.1) } else { (sum / near.len() as f32, weight) }
            });
            let wishes: Vec<_> = wishes.collect();
            let widths: Vec<f32> = rows[number].iter().map(|&place| places[place].width).collect();
            for (&place, x) in rows[number].iter().zip(apart(&wishes, &widths)) {
                places[place].x = x;
            }
        }
    }
}

/// The middles nearest to those wished for, by least squares of the weights, of boxes that keep their order and distance:
/// an isotonic regression, by pooling adjacent violators.
fn apart(wishes: &[(f32, f32)], widths: &[f32]) -> Vec<f32> {
    let mut offsets = Vec::with_capacity(widths.len());
    let mut offset = 0.0;
    for (number, width) in widths.iter().enumerate() {
        if number > 0 {
            offset += widths[number - 1] / 2.0 + BESIDE + width / 2.0;
        }
        offsets.push(offset);
    }
    // Each pool: its place, its weight, how many boxes.
    let mut pools: Vec<(f32, f32, usize)> = Vec::new();
    for ((wish, weight), offset) in wishes.iter().zip(&offsets) {
        let mut pool = (wish - offset, *weight, 1);
        while let Some(last) = pools.pop_if(|last| last.0 > pool.0) {
            let weight = last.1 + pool.1;
            pool = ((last.0 * last.1 + pool.0 * pool.1) / weight, weight, last.2 + pool.2);
        }
        pools.push(pool);
    }
    let middles = pools.into_iter().flat_map(|(place, _, count)| std::iter::repeat_n(place, count));
    middles.zip(offsets).map(|(place, offset)| place + offset).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four branches of one map and what joins them, and a line past them.
    fn inception() -> (Vec<[f32; 2]>, Vec<(usize, usize)>) {
        let edges = vec![(0, 1), (0, 2), (0, 3), (0, 4), (2, 5), (3, 6), (1, 7), (5, 7), (6, 7), (4, 7), (0, 7)];
        (vec![[120.0, 40.0]; 8], edges)
    }

    #[test]
    fn boxes_do_not_overlap_and_lines_run_down() {
        let (sizes, edges) = inception();
        let layout = lay_out(&sizes, &edges, &[0, 1, 2, 3, 4, 5, 6, 7], 30.0);
        for (number, a) in layout.boxes.iter().enumerate() {
            assert!(a[0] >= 0.0 && a[0] + 120.0 <= layout.size[0] + 0.1, "box {number} at {a:?} of {:?}", layout.size);
            for b in &layout.boxes[number + 1..] {
                assert!((a[0] - b[0]).abs() >= 120.0 || (a[1] - b[1]).abs() >= 40.0, "{a:?} is on {b:?}");
            }
        }
        for (edge, line) in edges.iter().zip(&layout.lines) {
            assert!(line.windows(2).all(|pair| pair[0][1] <= pair[1][1]), "{edge:?} runs up: {line:?}");
            assert_eq!(line[0][1], layout.boxes[edge.0][1] + 40.0, "{edge:?} begins at its box");
        }
    }

    #[test]
    fn what_parts_and_joins_stands_in_the_middle() {
        let layout = lay_out(&[[50.0, 20.0]; 4], &[(0, 1), (0, 2), (1, 3), (2, 3)], &[0, 1, 2, 3], 10.0);
        let x: Vec<f32> = layout.boxes.iter().map(|corner| corner[0]).collect();
        assert!((x[0] - x[3]).abs() < 1.0 && (x[0] - (x[1] + x[2]) / 2.0).abs() < 1.0, "{x:?}");
        assert_eq!(layout.size, [118.0, 80.0]);
        // What only ever moves to the left leaves no room to the right.
        let layout = lay_out(&[[50.0, 20.0], [200.0, 20.0], [50.0, 20.0]], &[(0, 1), (1, 2), (0, 2)], &[0, 1, 2], 10.0);
        let right = layout.boxes.iter().zip([50.0, 200.0, 50.0]).map(|(corner, width)| corner[0] + width);
        let lines = layout.lines.iter().flatten().map(|point| point[0]);
        assert!(right.chain(lines).fold(0.0, f32::max) > layout.size[0] - 10.0, "{layout:?}");
    }

    #[test]
    fn nothing_is_laid_out_as_nothing() {
        assert_eq!(lay_out(&[], &[], &[], 10.0).size, [0.0, 0.0]);
    }
}
