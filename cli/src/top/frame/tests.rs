use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use proptest::prelude::*;
use ratatui_core::{backend::TestBackend, terminal::Terminal};

use super::*;
use crate::top::{Sort, details::Details, look::Theme, state::Picture};

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// A container of a shop: number, CPU and throttling in thousandths, memory of a limit of a GiB in thousandths.
fn row(number: usize, [cpu, throttled, memory]: [u32; 3]) -> ContainerRow {
    let share = |thousandths: u32| f64::from(thousandths) / 1000.0;
    ContainerRow {
        node: format!("node-{}", number % 3),
        name: format!("checkout-{number:05}"),
        namespace: ["shop", "payments", ""][number % 3].to_owned(),
        id: format!("/{number}"),
        cpu_cores: Some(share(cpu)),
        cpu_limit_cores: Some(1.0),
        throttled_share: Some(share(throttled)),
        memory_working_set_bytes: Some(share(memory) * GIB),
        memory_peak_bytes: Some(GIB),
        memory_limit_bytes: Some(GIB),
        oom_kills: Some(0.0),
        ..ContainerRow::default()
    }
}

fn view_of(rows: Vec<ContainerRow>, agents: usize) -> View {
    let agent = |number| AgentStatus { name: format!("node-{number}"), ..AgentStatus::default() };
    let mut view = View::new(Sort::Cpu, Group::None);
    view.update(Picture { rows, agents: (0..agents).map(agent).collect(), interval_seconds: 2.0 });
    view
}

/// The screen as a terminal shows it.
fn screen(view: &mut View, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let theme = Theme { has_color: true };
    terminal
        .draw(|frame| {
            let lines = lines(view, width.into(), height.into());
            theme.draw(&lines, frame.area(), frame.buffer_mut());
        })
        .unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

#[test]
fn a_small_screen_has_what_matters() {
    let rows = vec![row(1, [154, 300, 500]), row(3, [52, 60, 900]), row(6, [2, 0, 990])];
    let text = screen(&mut view_of(rows, 1), 80, 24);
    assert_eq!(
        text[..5],
        [
            "snug top  node-0  3 containers  CPU 208m  memory 2.39Gi  over 2.0 s",
            "  NAME            NAMESPACE     CPU  CPU LIM   THROT  MEMORY  MEM LIM    OOM",
            "! checkout-00001  payments     154m     1.00   30.0%   512Mi      1Gi      0",
            "* checkout-00003  shop          52m     1.00    6.0%   922Mi      1Gi      0",
            "! checkout-00006  shop           2m     1.00    0.0%  1014Mi      1Gi      0",
        ]
    );
    assert_eq!(text[5..23], [""; 18]);
    assert_eq!(text[23], "q quit  Enter details  / filter  s sort: cpu  g group: none  p pause  ↑↓ select");
}

#[test]
fn a_large_screen_has_more_columns() {
    let text = screen(&mut view_of(vec![row(1, [154, 300, 500])], 3), 160, 50);
    for title in ["NODE", "PEAK", "%LIM"] {
        assert!(text[1].contains(title), "{}", text[1]);
    }
    assert!(text[2].contains("node-1") && text[2].contains("50%"), "{}", text[2]);
    assert!(text[49].ends_with("! danger * warning  ? no response"), "{}", text[49]);
}

#[test]
fn five_hundred_rows_scroll() {
    let rows: Vec<ContainerRow> = (0..500).map(|number| row(number, [number as u32, 0, 1])).collect();
    for (width, height, visible) in [(80, 24, 21), (160, 50, 47)] {
        let mut view = view_of(rows.clone(), 1);
        let text = screen(&mut view, width, height);
        assert!(text[0].contains(&format!("1-{visible} of 500 containers")), "{}", text[0]);
        assert!(text[2].contains("checkout-00499"), "{}", text[2]);
        view.press(KeyEvent::new(KeyCode::End, KeyModifiers::NONE));
        let text = screen(&mut view, width, height);
        let last = usize::from(height) - 2;
        assert!(text[last].contains("checkout-00000"), "{}", text[last]);
        assert!(text[0].contains("-500 of 500"), "{}", text[0]);
    }
}

#[test]
fn agents_that_are_away_and_back_are_named() {
    let mut view = View::new(Sort::Cpu, Group::None);
    let agent = |name: &str| AgentStatus { name: name.to_owned(), ..AgentStatus::default() };
    let away = AgentStatus { away: Some((12, "no route".to_owned())), ..agent("a") };
    let back = AgentStatus { back_after: Some(14), ..agent("b") };
    let rows = vec![ContainerRow { is_stale: true, ..row(1, [1, 0, 1]) }];
    view.update(Picture { rows, agents: vec![away, back, agent("c")], interval_seconds: 2.0 });
    let text = screen(&mut view, 80, 24);
    assert_eq!(text[1], "? a does not respond for 12 s: no route");
    assert_eq!(text[2], "  b is back after 14 s");
    assert!(text[4].starts_with("? checkout-00001"), "{}", text[4]);
}

#[test]
fn colours_are_left_out_on_request_and_signs_stay() {
    let mut view = view_of(vec![row(1, [154, 300, 500])], 1);
    let lines = lines(&mut view, 80, 24);
    let area = ratatui_core::layout::Rect::new(0, 0, 80, 24);
    let styles = |has_color| {
        let mut buffer = ratatui_core::buffer::Buffer::empty(area);
        Theme { has_color }.draw(&lines, area, &mut buffer);
        let cells = buffer.content().iter();
        (
            cells.clone().any(|cell| cell.fg != ratatui_core::style::Color::Reset),
            buffer[(0, 2)].symbol().to_owned(),
        )
    };
    assert_eq!((styles(true), styles(false)), ((true, "!".to_owned()), (false, "!".to_owned())));
}

#[test]
fn a_screen_without_rows_says_why() {
    assert!(screen(&mut view_of(Vec::new(), 1), 80, 24)[2].contains("no containers"));
    let mut view = view_of(vec![row(1, [1, 0, 1])], 1);
    for c in "/nothing".chars() {
        view.press(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE));
    }
    let text = screen(&mut view, 80, 24);
    assert!(text[2].contains("none of 1 container matches"), "{}", text[2]);
    assert!(text[23].starts_with("/nothing_"), "{}", text[23]);
}

proptest! {
    /// Names cannot draw: whatever they are, each line is as wide as the screen and the keys are at the bottom.
    #[test]
    fn any_rows_fit_any_screen(
        names in prop::collection::vec(any::<String>(), 0..30),
        values in prop::collection::vec(prop::num::f64::ANY, 1..9),
        width in 1..200_u16,
        height in 1..60_u16,
        keys in "[sgp/\r]{0,6}",
    ) {
        let value = |number: usize| values.get(number % values.len()).copied().filter(|value| value.is_finite());
        let rows = names.iter().enumerate().map(|(number, name)| ContainerRow {
            name: name.clone(),
            namespace: name.clone(),
            node: name.clone(),
            workload: name.clone(),
            id: number.to_string(),
            cpu_cores: value(number),
            memory_working_set_bytes: value(number + 1),
            memory_limit_bytes: value(number + 2),
            throttled_share: value(number + 3),
            oom_kills: value(number + 4),
            network_receive_bytes_per_second: value(number + 5),
            cpu_history_cores: Some(vec![value(number); 9]),
            ..ContainerRow::default()
        });
        let mut view = view_of(rows.collect(), 2);
        for c in keys.chars() {
            let code = if c == '\r' { KeyCode::Enter } else { KeyCode::Char(c) };
            view.press(KeyEvent::new(code, KeyModifiers::NONE));
        }
        let drawn = lines(&mut view, width.into(), height.into());
        prop_assert_eq!(drawn.len(), usize::from(height));
        let text = screen(&mut view, width, height);
        let is_plain = |c: char| !c.is_control() && !matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        prop_assert!(text.iter().all(|line| line.chars().all(is_plain)), "{text:?}");
        if let Some((row, _)) = view.open() {
            let row = row.clone();
            view.take_details(&row.node, &row.id, Details::default());
            lines(&mut view, width.into(), height.into());
        }
    }
}
