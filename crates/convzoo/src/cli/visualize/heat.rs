//! Grad-CAM, saliency and occlusion: heat over photographs.

use anyhow::{Context, Result};
use convzoo::visualize::{
    Colours, Map, Occluder, View, VisualizeError, grad_cam, guided_grad_cam, heat_bar, occlusion, saliency, short,
};
use convzoo::{Network, Prediction, classify};
use image::RgbImage;
use indicatif::ProgressBar;

use super::sheet::{Sheet, magnified};
use super::{Answer, Args, What, wrong};
use crate::cli::images::Source;
use crate::cli::output::progress;

/// Classes that the page names beside each image.
const TOP: usize = 5;

/// What explains a class: heat, or colours of their own.
enum Explanation {
    Heat(Map),
    Colours(Colours),
}

/// An image, and what the network says of it.
struct Subject {
    view: View,
    top: Vec<Prediction>,
    explained: Prediction,
}

/// Explains a class for each image.
pub fn explain(args: &Args, network: &Network, sources: &[Source], title: &str) -> Result<(Vec<Answer>, Sheet)> {
    let classes = network.classes();
    if let Some(class) = args.class.filter(|&class| class >= classes) {
        return Err(VisualizeError::Class { class, classes }.into());
    }
    let [_, height, width] = network.input();
    let occluder = args.window.map_or_else(|| Occluder::for_image(height, width), Occluder::of);
    let occluder = Occluder { stride: args.stride.unwrap_or(occluder.stride), ..occluder };
    let (steps, unit) = match args.what {
        What::Occlusion => (occluder.positions(height, width)?, "positions"),
        _ => (1, "images"),
    };
    let mut sheet = Sheet::new(args, network, title, introduction(args.what))?;
    let bar = progress(steps * sources.len(), unit);
    let mut answers = Vec::with_capacity(sources.len());
    for (index, source) in sources.iter().enumerate() {
        bar.set_position((steps * index) as u64);
        // An image that cannot be read does not stop the others.
        let subject = match subject(args.class, network, source) {
            Ok(subject) => subject,
            Err(error) => {
                answers.push(wrong(source, &error));
                continue;
            }
        };
        let explanation = explanation(args, network, &subject, occluder, &bar)?;
        show(args, network, &mut sheet, source, &subject, &explanation)?;
        let Subject { top, explained, .. } = subject;
        answers.push(Answer::Shown { image: source.name(), top, explained: Some(explained) });
    }
    bar.finish_and_clear();
    Ok((answers, sheet))
}

fn subject(class: Option<usize>, network: &Network, source: &Source) -> Result<Subject> {
    let image = source.read()?;
    let view = View::new(network, &image)?;
    let mut top = classify(network, &image, network.classes())?;
    let explained = top.iter().find(|prediction| class.is_none_or(|class| class == prediction.class));
    let explained = explained.context("the network has no classes")?.clone();
    top.truncate(TOP);
    Ok(Subject { view, top, explained })
}

fn explanation(
    args: &Args,
    network: &Network,
    subject: &Subject,
    occluder: Occluder,
    bar: &ProgressBar,
) -> Result<Explanation, VisualizeError> {
    let (input, class, layer) = (subject.view.input(), subject.explained.class, args.layer.as_deref());
    let start = bar.position();
    Ok(match args.what {
        What::Gradcam => Explanation::Heat(grad_cam(network, input, class, layer)?),
        What::GuidedGradcam => Explanation::Colours(guided_grad_cam(network, input, class, layer)?),
        What::Occlusion => {
            let covered = |positions| bar.set_position(start + positions as u64);
            Explanation::Heat(occlusion(network, input, class, occluder, covered)?)
        }
        _ => Explanation::Heat(saliency(network, input, class)?),
    })
}

/// Writes an image's files and adds its section to the page.
fn show(
    args: &Args,
    network: &Network,
    sheet: &mut Sheet,
    source: &Source,
    subject: &Subject,
    explanation: &Explanation,
) -> Result<()> {
    let (what, name) = (args.what.name(), sheet.name(&source.name()));
    let photograph = magnified(&subject.view.picture());
    let over = |map: &Map| {
        (map.over(&photograph), Some(format!("0 (cold) to {} (hot): {}", short(map.range().1), unit(args.what))))
    };
    let (picture, scale) = match explanation {
        // What single pixels stand out of would show nothing else.
        Explanation::Heat(map) if args.what == What::Saliency => over(&map.clone().clipped(0.99)),
        Explanation::Heat(map) => over(map),
        Explanation::Colours(colours) => (magnified(&colours.clone().clipped(0.995).picture()), None),
    };
    sheet.picture(&format!("{name}-{what}"), &picture)?;
    if args.raw {
        let (shape, values) = match explanation {
            Explanation::Heat(map) => (vec![map.height, map.width], &map.values),
            Explanation::Colours(colours) => (vec![colours.channels, colours.height, colours.width], &colours.values),
        };
        sheet.numbers(&format!("{name}-{what}"), &shape, values)?;
        sheet.input(&name, &subject.view)?;
    }
    let explained = &subject.explained;
    let class = network.class_name(explained.class);
    let caption = format!("{class}, probability {:.1}%", 100.0 * explained.probability);
    let rows: Vec<_> = subject.top.iter().map(row).collect();
    let figures: [(&RgbImage, &str); 2] = [(&photograph, "the network's input"), (&picture, &caption)];
    sheet.section(|page| {
        let page = page.heading(&name).images(figures);
        let page = scale.iter().fold(page, |page, scale| page.image(&heat_bar(), scale));
        page.table(&["class", "probability"], &rows)
    });
    Ok(())
}

fn row(prediction: &Prediction) -> Vec<String> {
    vec![prediction.name(), format!("{:.2}%", 100.0 * prediction.probability)]
}

/// What the heat counts.
fn unit(what: What) -> &'static str {
    match what {
        What::Occlusion => "probability lost",
        What::Gradcam => "activation, weighted by its channels' mean gradient",
        _ => "change of the score for a change of the pixel; the strongest hundredth of the pixels is cut off",
    }
}

fn introduction(what: What) -> &'static str {
    match what {
        What::Gradcam => {
            "Grad-CAM: the channels of a layer, weighted by the mean gradient of the class's score. Where it is hot, \
             the image contributes most to the score."
        }
        What::GuidedGradcam => {
            "Guided Grad-CAM: the pixels that contribute to the class's score, by guided backpropagation, \
             where Grad-CAM is warm. Grey is zero."
        }
        What::Occlusion => {
            "Occlusion: a grey square covers one part of the image after the other. Where it is hot, covering costs \
             the class most of its probability."
        }
        _ => {
            "Saliency: how much a small change of each pixel changes the class's score. Where it is hot, the score \
             hangs on single pixels."
        }
    }
}
