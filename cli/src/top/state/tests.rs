use proptest::prelude::*;

use super::*;

fn row(namespace: &str, name: &str, cpu_cores: f64) -> ContainerRow {
    ContainerRow {
        node: "n".to_owned(),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        id: format!("/{namespace}/{name}"),
        workload: name.split('-').next().unwrap_or_default().to_owned(),
        workload_kind: "Deployment".to_owned(),
        cpu_cores: Some(cpu_cores),
        ..ContainerRow::default()
    }
}

fn picture(rows: Vec<ContainerRow>) -> Picture {
    Picture { rows, ..Picture::default() }
}

fn view() -> View {
    let mut view = View::new(Sort::Cpu, Group::None);
    view.update(picture(vec![
        row("shop", "web-1", 0.1),
        row("shop", "web-2", 0.3),
        row("data", "db-0", 0.2),
    ]));
    view.fit(10);
    view
}

fn names(view: &View) -> Vec<&str> {
    view.lines().iter().map(|line| line.row.name.as_str()).collect()
}

fn press(view: &mut View, code: KeyCode) -> Action {
    view.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn write(view: &mut View, text: &str) {
    for c in text.chars() {
        press(view, KeyCode::Char(c));
    }
}

#[test]
fn rows_are_sorted_and_filtered() {
    let mut view = view();
    assert_eq!(names(&view), ["web-2", "db-0", "web-1"]);
    write(&mut view, "ss");
    assert_eq!(view.sort, Sort::Limit);
    write(&mut view, "/WEB");
    assert!(view.is_typing);
    assert_eq!(names(&view), ["web-1", "web-2"]);
    assert_eq!(press(&mut view, KeyCode::Enter), Action::None);
    assert!(!view.is_typing);
    press(&mut view, KeyCode::Esc);
    assert_eq!(view.lines().len(), 3);
    write(&mut view, "/q");
    assert_eq!(view.filter, "q", "keys are text while the filter is typed");
    press(&mut view, KeyCode::Esc);
    assert_eq!(press(&mut view, KeyCode::Char('q')), Action::Quit);
}

#[test]
fn groups_are_sums_and_open_into_their_containers() {
    let mut view = view();
    write(&mut view, "gg");
    assert_eq!((view.group, names(&view)), (Group::Namespace, vec!["shop", "data"]));
    assert_eq!(view.lines()[0].count, Some(2));
    assert_eq!(view.lines()[0].row.cpu_cores, Some(0.4));
    press(&mut view, KeyCode::Enter);
    assert_eq!(names(&view), ["web-2", "web-1"]);
    press(&mut view, KeyCode::Esc);
    assert_eq!(names(&view), ["shop", "data"]);
    write(&mut view, "g");
    assert_eq!(names(&view), ["shop/Deployment/web", "data/Deployment/db"]);
    write(&mut view, "g");
    assert_eq!(view.lines().len(), 3);
}

#[test]
fn a_paused_view_stands_still() {
    let mut view = view();
    write(&mut view, "p");
    view.update(picture(vec![row("shop", "new-1", 9.0)]));
    assert_eq!(names(&view), ["web-2", "db-0", "web-1"]);
    write(&mut view, "p");
    assert_eq!(names(&view), ["new-1"]);
}

#[test]
fn the_selection_stays_with_its_container() {
    let mut view = view();
    press(&mut view, KeyCode::Down);
    assert_eq!(view.visible().1, Some(1));
    view.update(picture(vec![
        row("shop", "web-1", 0.1),
        row("shop", "web-2", 0.3),
        row("data", "db-0", 5.0),
    ]));
    assert_eq!(names(&view)[0], "db-0");
    assert_eq!(view.visible().1, Some(0), "db-0 is now at the top");
    // Its container is gone: a neighbour is selected.
    view.update(picture(vec![row("shop", "web-1", 0.1)]));
    assert_eq!(view.visible().1, Some(0));
    view.update(picture(Vec::new()));
    assert_eq!((view.visible().1, press(&mut view, KeyCode::Enter)), (None, Action::None));
}

#[test]
fn details_are_those_of_the_open_container() {
    let mut view = view();
    let Action::Open(row) = press(&mut view, KeyCode::Enter) else { panic!("nothing opened") };
    assert_eq!(row.name, "web-2");
    view.take_details("n", "/shop/web-1", Details::default());
    assert!(view.open().unwrap().1.is_none(), "details of another container came late");
    view.take_details("n", "/shop/web-2", Details::default());
    assert!(view.open().unwrap().1.is_some());
    view.update(picture(vec![self::row("shop", "web-2", 0.7)]));
    assert_eq!(view.open().unwrap().0.cpu_cores, Some(0.7), "its row is that of the newest picture");
    view.update(picture(Vec::new()));
    assert_eq!(view.open().unwrap().0.cpu_cores, Some(0.7), "a container that ended stays open");
    press(&mut view, KeyCode::Esc);
    assert!(view.open().is_none());
}

#[test]
fn control_keys_work_everywhere() {
    let mut view = view();
    write(&mut view, "/");
    for (key, action) in
        [('c', Action::Quit), ('z', Action::Suspend), ('l', Action::Redraw), ('x', Action::None)]
    {
        assert_eq!(view.press(KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL)), action);
    }
    assert_eq!(view.filter, "");
}

proptest! {
    /// Whatever is pressed and measured, in whichever order: the selected line exists and is visible.
    #[test]
    fn the_selection_is_always_visible(
        steps in prop::collection::vec((0..14_usize, 0..40_usize), 0..80),
    ) {
        let mut view = view();
        for (step, size) in steps {
            let code = match step {
                0 => KeyCode::Up,
                1 => KeyCode::Down,
                2 => KeyCode::PageUp,
                3 => KeyCode::PageDown,
                4 => KeyCode::Home,
                5 => KeyCode::End,
                6 => KeyCode::Enter,
                7 => KeyCode::Esc,
                8 => KeyCode::Char('s'),
                9 => KeyCode::Char('g'),
                10 => KeyCode::Char('/'),
                11 => KeyCode::Char('p'),
                12 => {
                    view.fit(size);
                    continue;
                }
                _ => {
                    let rows = (0..size).map(|number| row(["a", "b", ""][number % 3], &format!("w{}-{number}", number % 5), number as f64));
                    view.update(picture(rows.collect()));
                    continue;
                }
            };
            press(&mut view, code);
            let (visible, selected) = view.visible();
            prop_assert_eq!(selected.is_some(), !view.lines().is_empty());
            prop_assert!(selected.is_none_or(|at| at < visible.len()));
            let (first, last) = view.range();
            prop_assert!(visible.is_empty() || last - first + 1 == visible.len());
        }
    }
}
