//! The chart of a report: users above, messages below, over the same time. Only digits are drawn, the words stand in the HTML around it, since a server
//! has no fonts and DejaVu has no Chinese.

use std::error::Error;
use std::ops::Range;
use std::sync::Once;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::{html, zoned};
use crate::health::Sample;

/// Twice as many pixels as a mail shows, for screens with fine ones.
const SIZE: (u32, u32) = (1200, 560);

const FONT: &str = "digits";
const FONT_PIXELS: i32 = 24;

/// At most so many bars.
const BARS: usize = 72;

/// Draws the samples; gives a PNG.
pub(super) fn draw(samples: &[Sample]) -> Result<Vec<u8>, Box<dyn Error>> {
    static FONTS: Once = Once::new();
    FONTS.call_once(|| {
        // The font is a constant; if it cannot be read, drawing the labels fails below.
        let _ = register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
    });
    let bars = joined(samples);
    let (Some(first), Some(last)) = (bars.first(), bars.last()) else { return Err("there are no samples yet".into()) };
    let time = first.from..last.to.max(first.from + 1);
    let mut pixels = vec![0; (SIZE.0 * SIZE.1 * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let (above, below) = area.split_vertically(SIZE.1 * 45 / 100);
        draw_users(&above, &bars, TimeAxis(time.clone()))?;
        draw_messages(&below, &bars, TimeAxis(time))?;
        area.present()?;
    }
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(file)
}

/// A range of Unix milliseconds, with marks at round times of day in the machine's time zone.
struct TimeAxis(Range<i64>);

impl Ranged for TimeAxis {
    type FormatOption = DefaultFormatting;
    type ValueType = i64;

    fn map(&self, time: &i64, pixels: (i32, i32)) -> i32 {
        let share = (time - self.0.start) as f64 / (self.0.end - self.0.start).max(1) as f64;
        pixels.0 + (f64::from(pixels.1 - pixels.0) * share).round() as i32
    }

    fn key_points<H: KeyPointHint>(&self, hint: H) -> Vec<i64> {
        const STEPS_MIN: [i64; 13] = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 10_080];
        let most = hint.max_num_points().max(1) as i64;
        let is_enough = |step: &i64| (self.0.end - self.0.start) / step <= most;
        let mut steps_ms = STEPS_MIN.into_iter().map(|minutes| minutes * 60_000);
        let Some(step) = steps_ms.find(is_enough) else { return Vec::new() };
        // Midnight here, not in Greenwich.
        let offset = zoned(self.0.start).offset().seconds() as i64 * 1000;
        let first = (self.0.start + offset).div_euclid(step) * step + step - offset;
        (first..self.0.end).step_by(step as usize).collect()
    }

    fn range(&self) -> Range<i64> {
        self.0.clone()
    }
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;

/// The axes, with times of day and round numbers.
macro_rules! mesh {
    ($chart:ident) => {
        $chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(229, 231, 235))
            .axis_style(RGBColor(156, 163, 175))
            .label_style((FONT, FONT_PIXELS).into_font().color(&RGBColor(75, 85, 99)))
            .x_labels(7)
            .y_labels(4)
            .x_label_formatter(&|time| clock(*time))
            .y_label_formatter(&|count| short(*count))
            .draw()?
    };
}

fn draw_users(area: &Area<'_>, bars: &[Sample], time: TimeAxis) -> Result<(), Box<dyn Error>> {
    let most = bars.iter().map(|bar| bar.users).max().unwrap_or(0);
    let mut chart = frame(area).build_cartesian_2d(time, 0..headroom(most))?;
    mesh!(chart);
    let steps = bars.iter().flat_map(|bar| [(bar.from, bar.users), (bar.to, bar.users)]);
    let blue = colour(html::BLUE);
    chart.draw_series(AreaSeries::new(steps, 0, blue.mix(0.15)).border_style(blue.stroke_width(3)))?;
    Ok(())
}

/// Bars of what was relayed, and upon them what had to wait.
fn draw_messages(area: &Area<'_>, bars: &[Sample], time: TimeAxis) -> Result<(), Box<dyn Error>> {
    let most = bars.iter().map(|bar| bar.relayed + bar.waiting).max().unwrap_or(0);
    let mut chart = frame(area).build_cartesian_2d(time, 0..headroom(most))?;
    mesh!(chart);
    let (green, orange) = (colour(html::GREEN).filled(), colour(html::ORANGE).filled());
    chart.draw_series(bars.iter().flat_map(|bar| {
        let (left, right) = (bar.from, bar.to - (bar.to - bar.from) / 8);
        let relayed = Rectangle::new([(left, 0), (right, bar.relayed)], green);
        let waiting = Rectangle::new([(left, bar.relayed), (right, bar.relayed + bar.waiting)], orange);
        // An empty rectangle would still be drawn as a line.
        [(bar.relayed, relayed), (bar.waiting, waiting)].into_iter().filter(|(count, _)| *count > 0).map(|(_, bar)| bar)
    }))?;
    Ok(())
}

fn frame<'a, 'b>(area: &'a Area<'b>) -> ChartBuilder<'a, 'b, BitMapBackend<'b>> {
    let mut frame = ChartBuilder::on(area);
    frame.margin(8).margin_right(28).x_label_area_size(40).y_label_area_size(96);
    frame
}

/// At most `BARS` samples, neighbours joined.
fn joined(samples: &[Sample]) -> Vec<Sample> {
    let each = samples.len().div_ceil(BARS).max(1);
    samples.chunks(each).filter_map(|some| some.iter().copied().reduce(Sample::join)).collect()
}

/// The top of an axis whose highest value is `most`.
fn headroom(most: u64) -> u64 {
    (most + most / 8).max(4)
}

fn colour(hex: &str) -> RGBColor {
    let number = u32::from_str_radix(hex.trim_start_matches('#'), 16).unwrap_or(0);
    let [_, red, green, blue] = number.to_be_bytes();
    RGBColor(red, green, blue)
}

fn clock(unix_ms: i64) -> String {
    zoned(unix_ms).strftime("%H:%M").to_string()
}

fn short(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..10_000_000 => format!("{} k", count as f64 / 1e3),
        _ => format!("{} M", count as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_at_round_times() {
        const MINUTE: i64 = 60_000;
        let marks = |minutes| TimeAxis(30_000..minutes * MINUTE).key_points(7usize);
        assert_eq!(marks(5), [1, 2, 3, 4].map(|minute| minute * MINUTE));
        assert!(marks(720).len() >= 5 && marks(720).iter().all(|mark| mark % (60 * MINUTE) == 0), "{:?}", marks(720));
        assert!(marks(1).is_empty() && marks(1_000_000_000).is_empty());
        assert_eq!(TimeAxis(0..0).map(&0, (5, 9)), 5);
    }

    #[test]
    fn a_chart_is_a_picture_whatever_it_shows() {
        let sample = |minute: i64, users, relayed| Sample {
            from: minute * 60_000,
            to: (minute + 1) * 60_000,
            users,
            relayed,
            waiting: relayed / 3,
            delivered_from_disk: 0,
        };
        assert!(draw(&[]).is_err());
        let few = [sample(0, 0, 0)];
        let many: Vec<Sample> =
            (0..1440).map(|minute| sample(minute, 5 + minute as u64 % 40, minute as u64 * 7_000)).collect();
        for samples in [few.as_slice(), &many] {
            let file = draw(samples).unwrap();
            let mut reader = png::Decoder::new(std::io::Cursor::new(&file)).read_info().unwrap();
            let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
            reader.next_frame(&mut pixels).unwrap();
            assert_eq!((reader.info().width, reader.info().height), SIZE);
            let has = |colour: RGBColor| pixels.chunks(3).any(|pixel| pixel == [colour.0, colour.1, colour.2]);
            assert!(has(WHITE) && has(colour(html::BLUE)), "the curve of users is missing");
            assert_eq!(has(colour(html::GREEN)), samples.len() > 1);
        }
        assert_eq!(joined(&many).len(), 72);
        assert_eq!(
            joined(&many).iter().map(|bar| bar.relayed).sum::<u64>(),
            many.iter().map(|bar| bar.relayed).sum::<u64>()
        );
    }
}
