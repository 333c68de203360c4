//! Charts are drawn whatever their data, and pages hold what they were given and nothing that runs.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

use convzoo_report::{Bars, Chart, Grid, Lines, Matrix, Page, Scatter, write_png};
use image::{Rgb, RgbImage};

/// Both forms of a chart; `CONVZOO_LOOK=DIR` keeps them to be looked at.
fn draw(name: &str, chart: &impl Chart) -> (String, RgbImage) {
    let (svg, image) = (chart.svg().unwrap(), chart.image().unwrap());
    assert_eq!(image.dimensions(), chart.size(), "{name}");
    if let Some(folder) = std::env::var_os("CONVZOO_LOOK") {
        write_png(&image, &std::path::Path::new(&folder).join(format!("{name}.png"))).unwrap();
    }
    (svg, image)
}

/// How many pixels are of the colour.
fn count(image: &RgbImage, colour: [u8; 3]) -> usize {
    image.pixels().filter(|pixel| pixel.0 == colour).count()
}

const FIRST: [u8; 3] = [0, 114, 178];

#[test]
fn lines_show_every_series_and_its_name() {
    let chart = Lines::new("Loss", "epoch", "cross entropy")
        .series("train", (1..=20).map(|epoch| (f64::from(epoch), 2.3 / f64::from(epoch))))
        .series("test", (1..=20).map(|epoch| (f64::from(epoch), 0.3 + 2.0 / f64::from(epoch))));
    let (svg, image) = draw("lines", &chart);
    for text in ["Loss", "epoch", "cross entropy", "train", "test"] {
        assert!(svg.contains(text), "the drawing lacks `{text}`");
    }
    assert!(count(&image, FIRST) > 300, "the first curve is not drawn");
    assert!(svg.starts_with("<svg role=\"img\"") && svg.contains("<title>Loss</title>"), "{}", &svg[..200]);
    draw("logarithmic", &chart.logarithmic());
}

/// The numbers that stand at a chart's axes.
fn labels(chart: &Lines) -> Vec<String> {
    let svg = chart.svg().unwrap();
    let texts = svg.split("<text").skip(1).filter_map(|text| text.split('>').nth(1)?.split('<').next());
    texts.map(|text| text.trim().to_owned()).filter(|text| text.parse::<f64>().is_ok()).collect()
}

#[test]
fn axes_have_ticks_at_round_numbers_and_at_whole_epochs() {
    let lines = |points: &[(f64, f64)]| Lines::new("Curve", "epoch", "%").series("", points.iter().copied());
    let three = labels(&lines(&[(1.0, 10.0), (2.0, 50.0), (3.0, 95.0)]));
    assert_eq!(three, ["20", "40", "60", "80", "100", "1", "2", "3"]);
    // Within a decade of its logarithm, and over many.
    let narrow = labels(&lines(&[(1.0, 110.0), (8.0, 190.0)]).logarithmic());
    assert!(narrow.iter().filter(|label| label.parse::<f64>().unwrap() >= 100.0).count() >= 3, "{narrow:?}");
    let wide = labels(&lines(&[(1.0, 1e-3), (8.0, 2e4)]).logarithmic());
    assert!(["0.01", "1", "100", "10000"].iter().all(|tick| wide.iter().any(|label| label == tick)), "{wide:?}");
}

#[test]
fn a_legend_stands_where_no_curve_is() {
    let epochs = || (1..=12).map(f64::from);
    // One curve stays at the upper right, the others come down to the lower right.
    let chart = |rising: f64| {
        Lines::new("Error", "epoch", "per cent")
            .series("stays", epochs().map(|x| (x, 90.0)))
            .series("moves", epochs().map(move |x| (x, if rising > 0.0 { 7.0 * x } else { 90.0 - 7.0 * x })))
    };
    let place = |svg: &str| {
        let name = svg.find("\nstays").unwrap();
        let tag = &svg[svg[..name].rfind("<text").unwrap()..name];
        [" x=\"", " y=\""].map(|attribute| {
            tag.split(attribute).nth(1).and_then(|rest| rest.split('"').next()).unwrap().parse::<i32>().unwrap()
        })
    };
    let [x, y] = place(&draw("falling", &chart(-1.0)).0);
    assert!(x < 240 && y > 160, "beside falling curves it stands at {x}, {y}");
    let [x, y] = place(&draw("rising", &chart(1.0)).0);
    assert!(x > 240 && y > 160, "beside a rising curve it stands at {x}, {y}");
}

#[test]
fn lines_stand_empty_single_and_infinite_data() {
    let empty = || Lines::new("Nothing", "x", "y");
    draw("empty", &empty());
    draw("empty-logarithmic", &empty().logarithmic());
    let (_, one) = draw("one", &empty().series("one", [(1.0, 0.5)]));
    assert!(count(&one, FIRST) > 5, "a single point is not drawn");
    draw("infinite", &empty().series("bad", [(1.0, f64::NAN), (2.0, f64::INFINITY), (3.0, 1.0)]));
    draw("zeros", &empty().series("zeros", [(1.0, 0.0), (2.0, -1.0)]).logarithmic());
}

#[test]
fn bars_are_as_long_as_their_values() {
    let chart = Bars::new("Time of one image", "milliseconds", ["flex", "ndarray"])
        .group("lenet5", [Some(1.0), Some(2.0)])
        .group("resnet18", [Some(4.0), None]);
    let (svg, image) = draw("bars", &chart);
    assert!(svg.contains("resnet18") && svg.contains("ndarray") && svg.contains('–'));
    let lengths: Vec<_> = (0..image.height())
        .map(|y| (14..image.width()).filter(|&x| image.get_pixel(x, y).0 == FIRST).count())
        .collect();
    let longest = *lengths.iter().max().unwrap() as f64;
    let quarter = lengths.iter().filter(|&&length| (length as f64 / longest - 0.25).abs() < 0.05).count();
    assert!(quarter > 8, "no bar is a quarter as long as the longest: {lengths:?}");
}

#[test]
fn a_matrix_shades_rows_by_their_share() {
    let labels = ["cat", "dog", "horse"];
    let values = vec![vec![9.0, 1.0, 0.0], vec![0.0, 10.0, 0.0], vec![0.0, 0.0, 0.0]];
    let (svg, image) = draw("matrix", &Matrix::new("Confusion", "class", "predicted class", labels, values));
    assert!(svg.contains("horse"));
    assert!(count(&image, FIRST) > 500, "a row that is all right is not in full colour");
    // A thousand classes: cells of a pixel, no labels, and still a picture.
    let values = (0..1000).map(|row| (0..1000).map(|column| f64::from(u8::from(row == column))).collect()).collect();
    let labels = (0..1000).map(|class| format!("class {class}"));
    let (_, image) = draw("thousand", &Matrix::new("Confusion", "class", "predicted class", labels, values));
    assert!(image.width() < 1100);
}

#[test]
fn points_are_coloured_by_class() {
    let points = (0..200).map(|point| {
        let angle = f64::from(point) * 0.4;
        let class = (point % 3) as usize;
        (angle.cos() + 3.0 * class as f64, angle.sin(), class)
    });
    let (svg, image) = draw("scatter", &Scatter::new("Features", "first", "second", ["a", "b", "c"], points));
    assert!(svg.contains("Features") && svg.contains("second"));
    assert!(image.pixels().any(|pixel| pixel.0 != [255; 3]));
    let speeds = [(2.0, 58.2, 0), (8.0, 69.8, 0), (21.0, 80.9, 0), (31.0, 69.8, 1)];
    let chart = Scatter::new("Accuracy", "ms", "top-1", ["flex", "wgpu"], speeds).names(["squeeze", "18", "50", "18b"]);
    let (svg, _) = draw("named-points", &chart.logarithmic());
    assert!(["squeeze", "18b", "top-1"].iter().all(|text| svg.contains(text)), "{svg}");
    draw("no-points", &Scatter::new("Features", "first", "second", [""; 0], []));
}

#[test]
fn a_grid_holds_every_tile_at_its_place() {
    let tile = |value| RgbImage::from_pixel(20, 10, Rgb([value, 0, 0]));
    let grid = (1..=5).fold(Grid::new(3), |grid, index| grid.tile(format!("channel {index}"), tile(40 * index)));
    let image = grid.image().unwrap();
    for index in 1..=5 {
        assert_eq!(count(&image, [40 * index, 0, 0]), 200, "tile {index}");
    }
    // A label of two lines takes the room of two, and none reaches beyond its tile.
    let long = Grid::new(1).tile("features.denseblock4.denselayer16.conv1\nch 3", tile(1)).image().unwrap();
    assert_eq!(long.dimensions(), (32, 10 + 2 * 16 + 12));
    assert_eq!(Grid::new(4).image().unwrap().width(), 13);
    assert_eq!(Grid::new(9).tile("", tile(1)).image().unwrap().dimensions(), (32, 22));
}

#[test]
fn a_page_escapes_what_it_is_given_and_replaces_its_file_in_one_step() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let page = Page::new("A <run>")
        .heading("Epochs & loss")
        .text("<script>alert(1)</script>")
        .table(&["name", "loss"], &[vec!["a".into(), "0.5".into()], vec!["b".into(), String::new()]])
        .image(&RgbImage::new(2, 2), "two \"pixels\"");
    page.write(&path).unwrap();
    page.write(&path).unwrap();
    let html = std::fs::read_to_string(&path).unwrap();
    assert_eq!(html, page.html());
    assert!(!html.contains("<script") && html.contains("A &lt;run&gt;") && html.contains("data:image/png;base64,"));
    assert!(html.contains("<td class=\"number\">0.5</td>"), "numbers are set to the right");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file is left behind");
    let refused = page.write(&folder.path().join("missing/report.html")).unwrap_err();
    assert!(refused.to_string().contains("missing/report.html"), "{refused}");
}

#[test]
fn names_with_control_characters_make_files_that_are_read() {
    let names = ["a\u{1b}[2Jb", "nul\0", "c\u{7f}\u{9b}d", "e & <f>"];
    let values = vec![vec![1.0; names.len()]; names.len()];
    let chart = Matrix::new("title\u{7}", "class", "predicted class", names, values);
    let svg = chart.svg().unwrap();
    let page = Page::new("page\u{1b}").heading("h\u{8}").svg(&svg, "caption\u{1}").html();
    for text in [&svg, &page] {
        assert!(!text.contains(|character: char| character.is_control() && character != '\n'), "{text:?}");
        assert!(text.contains(r"a\u{1b}[2Jb"), "the rest of a name is lost");
    }
    chart.image().unwrap();
}

#[test]
fn files_of_this_crate_are_told_from_others() {
    use convzoo_report::{is_report, write_svg};
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let image = RgbImage::from_pixel(3, 2, Rgb([1, 2, 3]));
    write_png(&image, &path("ours.png")).unwrap();
    image.save(path("theirs.png")).unwrap();
    Page::new("ours").write(&path("ours.html")).unwrap();
    std::fs::write(path("theirs.html"), "<!DOCTYPE html><html><head><title>mine</title></head></html>").unwrap();
    let svg = Bars::new("bars", "ms", ["x"]).group("a", [Some(1.0)]).svg().unwrap();
    write_svg(&svg, &path("ours.svg")).unwrap();
    std::fs::write(path("theirs.svg"), &svg).unwrap();
    std::fs::write(path("empty"), "").unwrap();
    for name in ["png", "html", "svg"] {
        assert!(is_report(&path(&format!("ours.{name}"))).unwrap(), "{name}");
        assert!(!is_report(&path(&format!("theirs.{name}"))).unwrap(), "{name}");
    }
    assert!(!is_report(&path("empty")).unwrap());
    // The mark disturbs no reader.
    assert_eq!(image::open(path("ours.png")).unwrap().into_rgb8(), image);
}
