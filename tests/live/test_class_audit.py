"""What the audit list notes of a class."""

from __future__ import annotations

from class_tools import TOKEN, classroom, join, teacher


def test_audit_list_has_the_whole_life_of_a_class(start_class):
    hub = start_class(classroom("code"))
    boss = teacher(hub)
    made = {"uses": "5", "lifetime_s": "3600", "group": "8b"}
    boss.submit("/hub/class/codes", made, page="/hub/class")
    ((number, code),) = hub.rows("select id, code from class_codes")
    join(hub, "ada", code=code)
    boss.submit(f"/hub/class/codes/{number}/end", {}, page="/hub/class")
    boss.submit("/hub/class/reset/ada", {})
    boss.submit("/hub/class/roster", {"list": "anna\nbert\n", "sure": "1"})
    noted = hub.rows("select actor, action, user from audit order by id")
    assert noted[-7:] == [
        ("teacher", "make class code", ""),
        ("ada", "join class", "ada"),
        ("teacher", "end class code", ""),
        ("teacher", "give one-time code", "ada"),
        ("teacher", "import class list", ""),
        ("teacher", "add user", "anna"),
        ("teacher", "add user", "bert"),
    ]
    assert code not in boss.get("/hub/admin/audit").text
    german = boss.get("/hub/admin/audit", headers={"Accept-Language": "de"}).text
    assert "Klassencode gemacht" in german and "in die Klasse" not in german


def test_audit_list_has_who_was_let_in_and_who_was_not(start_class):
    hub = start_class(classroom("approve"))
    for name in ("ada", "ben", "eve"):
        join(hub, name, code="")
    hub.api("class/waiting", TOKEN, "POST", json={"approve": ["ada"], "refuse": ["ben", "nemo"]})
    boss = teacher(hub)
    chosen = {"name": "eve", "verdict": "refuse"}
    boss.submit("/hub/class/waiting", chosen, page="/hub/class")
    noted = hub.rows("select actor, action, user from audit where user in"
                     " ('ada', 'ben', 'eve', 'nemo') order by id")  # fmt: skip
    assert noted == [
        ("ada", "ask to join", "ada"),
        ("ben", "ask to join", "ben"),
        ("eve", "ask to join", "eve"),
        ("office", "let into class", "ada"),
        ("office", "turn away from class", "ben"),
        ("teacher", "turn away from class", "eve"),
    ]
