//! Plots of violations against footprint, and of delivered against asked, as SVG.

use snug_sizing::backtest::streams::LawSet;

use super::{
    report::Report,
    subject::{Curve, Point},
    table::escaped,
    world_report::WorldReport,
};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 460.0;
/// Margins for the axes: left, right, top, bottom.
const MARGINS: [f64; 4] = [70.0, 190.0, 40.0, 50.0];
/// One colour per line.
const COLOURS: [&str; 14] = [
    "#d62728", "#ff9896", "#1f77b4", "#17becf", "#2ca02c", "#98df8a", "#9467bd", "#8c564b", "#7f7f7f",
    "#ff7f0e", "#393b79", "#e377c2", "#bcbd22", "#000000",
];
/// Policies that are not drawn: their lines are nearly those of others.
const HIDDEN: [&str; 6] = [
    "krr-simple-oomkills",
    "krr-simple-limit",
    "goldilocks-request",
    "goldilocks-limit",
    "attune-nofilter",
    "vpa-recommender",
];
/// Lower end of the logarithmic axis, percent; lower values are drawn here.
const MIN_PERCENT: f64 = 0.02;

/// A line of a plot.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
    /// Points that are marked.
    dots: Vec<(f64, f64)>,
}

/// A plot with a logarithmic vertical axis.
struct Plot {
    id: String,
    title: String,
    below: &'static str,
    /// Whether the horizontal axis is logarithmic, too.
    logarithmic: bool,
    lines: Vec<Line>,
}

/// All plots of a report, with the names of their files.
pub(super) fn all(report: &Report) -> Vec<(String, String)> {
    let of_worlds = report.worlds.iter().flat_map(|world| [memory(world), cpu(world)]);
    of_worlds.chain([calibration(report)]).map(|plot| (plot.id.clone(), plot.draw())).collect()
}

/// A name that can be a part of a file's name.
fn file_name(name: &str) -> String {
    name.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '-' }).collect()
}

fn lines(curves: &[Curve], point: &dyn Fn(&Point) -> (f64, f64)) -> Vec<Line> {
    let shown = curves.iter().filter(|curve| !HIDDEN.contains(&curve.policy.as_str()));
    let line = |curve: &Curve| {
        let of = |shipped: bool| {
            let points = curve.points.iter().filter(move |point| !shipped || point.shipped);
            // The engine's own point is beside its line.
            points.filter(move |it| shipped || !it.shipped || it.factor != 1.0 || !is_engine(curve))
        };
        Line {
            name: curve.policy.clone(),
            points: of(false).map(point).collect(),
            dots: of(true).map(point).collect(),
        }
    };
    shown.map(line).collect()
}

fn is_engine(curve: &Curve) -> bool {
    curve.policy.starts_with("snug")
}

/// Pod-days with a violation against the footprint of memory.
fn memory(world: &WorldReport) -> Plot {
    let point = |point: &Point| (point.memory.footprint_ratio, point.memory.violation_pod_days_pct);
    Plot {
        id: file_name(&format!("{}-memory", world.name)),
        title: format!("{}: memory, pod-days above the limit, %", world.name),
        below: "footprint: limits ÷ maxima",
        logarithmic: false,
        lines: lines(&world.curves, &point),
    }
}

/// CPU time above the request against the footprint of CPU.
fn cpu(world: &WorldReport) -> Plot {
    let point = |point: &Point| (point.cpu.footprint_ratio, point.cpu.unserved_work_pct);
    let is_drawn = |curve: &Curve| curve.policy != "kruize-approx-cost";
    let mut lines = lines(&world.curves, &point);
    lines.retain(|line| world.curves.iter().any(|curve| curve.policy == line.name && is_drawn(curve)));
    Plot {
        id: file_name(&format!("{}-cpu", world.name)),
        title: format!("{}: CPU, time above the request, %", world.name),
        below: "footprint: requests ÷ usage",
        logarithmic: false,
        lines,
    }
}

/// Delivered against asked, on worlds and on synthetic usage.
fn calibration(report: &Report) -> Plot {
    let mut lines = vec![Line {
        name: "asked = delivered".to_owned(),
        points: vec![(0.25, 0.25), (5.0, 5.0)],
        dots: Vec::new(),
    }];
    let mut add =
        |name: String, points: Vec<(f64, f64)>| lines.push(Line { name, dots: points.clone(), points });
    for world in &report.worlds {
        if let Some(found) = &world.calibration {
            let of = found.without_floors.iter();
            add(
                format!("{} memory", world.name),
                of.clone().map(|it| (it.asked_pct, it.memory_pct.value)).collect(),
            );
            add(format!("{} CPU, mean", world.name), of.map(|it| (it.asked_pct, it.cpu_mean_pct)).collect());
        }
    }
    if let Some(streams) = &report.streams {
        let of_laws = || streams.calibration.iter().filter(|it| it.laws == LawSet::First);
        let mut kinds: Vec<&str> = of_laws().map(|it| it.kind.as_str()).collect();
        kinds.dedup();
        for kind in kinds {
            let of = of_laws().filter(|it| it.kind == kind);
            add(format!("{kind} memory"), of.map(|it| (it.asked_pct, it.memory_pct.1)).collect());
        }
    }
    Plot {
        id: "calibration".to_owned(),
        title: "Delivered, %".to_owned(),
        below: "asked, %",
        logarithmic: true,
        lines,
    }
}

fn part(value: f64, low: f64, high: f64) -> f64 {
    if high > low { (value - low) / (high - low) } else { 0.5 }
}

fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

fn text(x: f64, y: f64, anchor: &str, text: &str) -> String {
    let text = escaped(text);
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#333\">{text}</text>\n")
}

impl Plot {
    fn draw(&self) -> String {
        let all = || self.lines.iter().flat_map(|line| line.points.iter().chain(&line.dots));
        let scale = |value: f64| if self.logarithmic { value.max(MIN_PERCENT).ln() } else { value };
        let (left, right) = ends(all().map(|point| scale(point.0)));
        let (low, high) = ends(all().map(|point| point.1.max(MIN_PERCENT)));
        let [room_left, room_right, room_top, room_bottom] = MARGINS;
        let (wide, tall) = (WIDTH - room_left - room_right, HEIGHT - room_top - room_bottom);
        let x = |value: f64| room_left + wide * part(scale(value), left, right);
        let y = |value: f64| room_top + tall * (1.0 - part(value.max(MIN_PERCENT).ln(), low.ln(), high.ln()));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" id=\"{}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
            escaped(&self.id)
        );
        svg.push_str(&text(room_left, room_top - 20.0, "start", &self.title));
        svg.push_str(&text(room_left + wide / 2.0, HEIGHT - 12.0, "middle", self.below));
        for step in 0..=4 {
            let along = left + (right - left) * f64::from(step) / 4.0;
            let value = if self.logarithmic { along.exp() } else { along };
            svg.push_str(&text(x(value), HEIGHT - room_bottom + 18.0, "middle", &format!("{value:.2}")));
            let value = (low.ln() + (high.ln() - low.ln()) * f64::from(step) / 4.0).exp();
            svg.push_str(&text(room_left - 8.0, y(value) + 4.0, "end", &format!("{value:.2}")));
            svg.push_str(&format!("<path d=\"M{room_left},{0:.1}h{wide}\" stroke=\"#ddd\"/>\n", y(value)));
        }
        for (place, line) in self.lines.iter().filter(|line| !line.points.is_empty()).enumerate() {
            let colour = COLOURS.get(place % COLOURS.len()).copied().unwrap_or("black");
            let points: Vec<String> =
                line.points.iter().map(|(at, risk)| format!("{:.1},{:.1}", x(*at), y(*risk))).collect();
            svg.push_str(&format!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
                points.join(" ")
            ));
            for (at, risk) in &line.dots {
                svg.push_str(&format!(
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"/>\n",
                    x(*at),
                    y(*risk)
                ));
            }
            let down = room_top + 18.0 * place as f64;
            let across = WIDTH - room_right + 14.0;
            svg.push_str(&format!(
                "<path d=\"M{across},{down}h18\" stroke=\"{colour}\" stroke-width=\"3\"/>\n"
            ));
            svg.push_str(&text(across + 24.0, down + 4.0, "start", &line.name));
        }
        svg.push_str("</svg>\n");
        svg
    }
}
