//! Pictures of what was measured: curves in panels, as a PNG.

use std::error::Error;
use std::ops::Range;
use std::sync::Once;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::load::STEP;
use super::report::Report;

const PANEL: (u32, u32) = (900, 560);
const FONT: &str = "bench";
const FONT_PIXELS: i32 = 20;

/// Told apart also by those who do not see red and green: Okabe and Ito's palette.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// A line.
#[derive(Debug, Clone)]
pub struct Curve {
    /// What the legend calls it.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// Some lines over one axis.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Above it.
    pub title: String,
    /// What x is, with its unit.
    pub x: String,
    /// What y is, with its unit.
    pub y: String,
    /// Both axes grow by factors; else both begin at 0.
    pub is_logarithmic: bool,
    /// The lines.
    pub curves: Vec<Curve>,
}

/// The panels one below the other.
///
/// # Errors
/// There is nothing to draw.
pub fn draw(panels: &[Panel]) -> Result<Vec<u8>, Box<dyn Error>> {
    static FONTS: Once = Once::new();
    FONTS.call_once(|| {
        // The font is a constant; if it cannot be read, drawing the labels fails below.
        let _ = register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
    });
    let (width, height) = (PANEL.0, PANEL.1 * panels.len() as u32);
    let mut pixels = vec![0; (width * height * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        area.fill(&WHITE)?;
        for (area, panel) in area.split_evenly((panels.len(), 1)).iter().zip(panels) {
            panel.draw(area)?;
        }
        area.present()?;
    }
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(file)
}

/// How the latencies of some runs are distributed, and their rates over time.
///
/// # Errors
/// There is nothing to draw.
pub fn draw_reports(reports: &[Report]) -> Result<Vec<u8>, Box<dyn Error>> {
    let name = |report: &Report| format!("{} {}", report.target, report.workload);
    let latencies = reports.iter().filter(|report| !report.distribution_us.is_empty());
    let latencies = latencies.map(|report| Curve { name: name(report), points: report.distribution_us.clone() });
    let rates = reports.iter().filter(|report| report.series.len() > 1).map(|report| {
        let at = |step: usize| (step as f64 + 0.5) * STEP.as_secs_f64();
        // The last one is not whole.
        let whole = &report.series[..report.series.len() - 1];
        let points = whole.iter().enumerate().map(|(step, count)| (at(step), *count as f64 / STEP.as_secs_f64()));
        Curve { name: name(report), points: points.collect() }
    });
    draw(&[
        Panel {
            title: "Latency: one message in so many took longer".into(),
            x: "messages (100 = p99)".into(),
            y: "µs".into(),
            is_logarithmic: true,
            curves: latencies.collect(),
        },
        Panel {
            title: "Rate".into(),
            x: "s".into(),
            y: "a second".into(),
            is_logarithmic: false,
            curves: rates.collect(),
        },
    ])
}

/// From the least to the greatest value, with some room.
fn range(values: impl Iterator<Item = f64> + Clone, is_logarithmic: bool) -> Result<Range<f64>, Box<dyn Error>> {
    let values = values.filter(|value| value.is_finite() && (!is_logarithmic || *value > 0.0));
    let Some(most) = values.clone().reduce(f64::max) else { return Err("there is nothing to draw".into()) };
    let least = values.reduce(f64::min).unwrap_or(most);
    Ok(match is_logarithmic {
        true => least / 1.3..most.max(least * 2.0) * 1.3,
        false => 0.0..(most * 1.1).max(1e-9),
    })
}

impl Panel {
    fn draw(&self, area: &DrawingArea<BitMapBackend<'_>, Shift>) -> Result<(), Box<dyn Error>> {
        let points = || self.curves.iter().flat_map(|curve| &curve.points);
        let x = range(points().map(|point| point.0), self.is_logarithmic)?;
        let y = range(points().map(|point| point.1), self.is_logarithmic)?;
        let mut builder = ChartBuilder::on(area);
        builder
            .margin(12)
            .margin_right(28)
            .x_label_area_size(56)
            .y_label_area_size(90)
            .caption(&self.title, (FONT, FONT_PIXELS + 4));
        // The two kinds of axis are different types.
        macro_rules! plot {
            ($x:expr, $y:expr) => {{
                let mut chart = builder.build_cartesian_2d($x, $y)?;
                chart
                    .configure_mesh()
                    .light_line_style(TRANSPARENT)
                    .bold_line_style(RGBColor(229, 231, 235))
                    .label_style((FONT, FONT_PIXELS))
                    .x_desc(&self.x)
                    .y_desc(&self.y)
                    .x_label_formatter(&|value| short(*value))
                    .y_label_formatter(&|value| short(*value))
                    .draw()?;
                for (curve, colour) in self.curves.iter().zip(COLOURS.iter().cycle()) {
                    let style = colour.stroke_width(3);
                    let drawn = |point: &&(f64, f64)| !self.is_logarithmic || point.0 > 0.0 && point.1 > 0.0;
                    let points = curve.points.iter().filter(drawn).copied();
                    let marks = points.clone().map(|point| Circle::new(point, 4, colour.filled()));
                    if curve.points.len() < 20 {
                        chart.draw_series(marks)?;
                    }
                    chart
                        .draw_series(LineSeries::new(points, style))?
                        .label(&curve.name)
                        .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], style));
                }
                chart
                    .configure_series_labels()
                    .position(SeriesLabelPosition::UpperLeft)
                    .background_style(WHITE.mix(0.8))
                    .border_style(RGBColor(229, 231, 235))
                    .label_font((FONT, FONT_PIXELS))
                    .draw()?;
            }};
        }
        match self.is_logarithmic {
            true => plot!(x.log_scale(), y.log_scale()),
            false => plot!(x, y),
        }
        Ok(())
    }
}

fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{} M", round(value / 1e6)),
        size if size >= 1e4 => format!("{} k", round(value / 1e3)),
        _ => round(value),
    }
}

fn round(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_a_picture_and_nothing_is_an_error() {
        let curve = |name: &str| Curve {
            name: name.into(),
            points: (1..10).map(|n| (f64::from(n) * 10.0, f64::from(n * n))).collect(),
        };
        let panel = |is_logarithmic, curves| Panel {
            title: "T".into(),
            x: "pairs".into(),
            y: "µs".into(),
            is_logarithmic,
            curves,
        };
        let file = draw(&[panel(true, vec![curve("a"), curve("b")]), panel(false, vec![curve("a")])]).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let has = |colour: RGBColor| pixels.chunks(3).any(|pixel| pixel == [colour.0, colour.1, colour.2]);
        assert!(has(COLOURS[0]) && has(COLOURS[1]));
        assert!(draw(&[panel(true, Vec::new())]).is_err());
        assert_eq!([1.0, 0.25, 12_300.0, 2_500_000.0].map(short), ["1", "0.25", "12.3 k", "2.5 M"]);
    }
}
