"""The pages of prompts: versions of the chosen agent, one of them, two compared, a new one, and a label's history."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

import attrs
from fastapi import APIRouter, Depends, Form, Query, Response
from pydantic import ValidationError

from memoair_cloud.dashboard.page_route import MAX_FORM_BYTES, PageRoute
from memoair_cloud.dashboard.project_page import PAGE_ROWS, CursorParam, PageDep, ProjectPage, Text
from memoair_cloud.dashboard.prompt_diff import MAX_LINES, read_diff
from memoair_cloud.errors import ApiError, ConflictError, InvalidRequestError
from memoair_cloud.http.schemas.prompts import LabelPath, PromptIn, VersionPath
from memoair_cloud.prompts import labels, versions
from memoair_protocol.prompt_template import MAX_PROMPT_CHARS, is_prompt_label, locate_placeholders
from memoair_protocol.text_diff import diff_texts


class PromptFormRoute(PageRoute):
    """A route whose form has a prompt. A form may write a character with twelve bytes."""

    max_form_bytes = 12 * MAX_PROMPT_CHARS + MAX_FORM_BYTES


router = APIRouter(prefix="/p/{project_id}/prompts", route_class=PromptFormRoute)

_LABELS_SHOWN = 50


def find_agent_page(page: PageDep) -> ProjectPage | None:
    """Return the page of the agent that the address names, or of the only one; None if an agent has to be chosen."""
    agent_id = page.view.agent_id
    if agent_id is None:
        if len(page.agents) != 1:
            return None
        agent_id = page.agents[0].id
    view = attrs.evolve(page.view, agent_id=agent_id, given={**page.view.given, "agent": agent_id})
    return attrs.evolve(page, view=view, tenant=page.tenant.for_agent(agent_id))


def get_agent_page(page: Annotated[ProjectPage | None, Depends(find_agent_page)]) -> ProjectPage:
    """Return the page of the chosen agent. This is the FastAPI dependency."""
    if page is None:
        raise InvalidRequestError("the address does not say of which agent: open Prompts and choose one", field="agent")
    return page


AgentPage = Annotated[ProjectPage, Depends(get_agent_page)]
IsConfirmed = Annotated[bool, Form(alias="confirm")]
PointedTo = Annotated[int, Form(ge=0)]  # where a label pointed when the page was shown
PromptTextField = Annotated[str, Form(max_length=2 * MAX_PROMPT_CHARS)]  # too long a text is shown again, not lost
NotesField = Annotated[str, Form(max_length=10_000)]
VersionOrLabel = Annotated[str, Query(max_length=64)]


@router.get("")
def show_prompts(
    page: PageDep,
    agent_page: Annotated[ProjectPage | None, Depends(find_agent_page)],
    cursor: CursorParam = None,
    label_cursor: CursorParam = None,
) -> Response:
    """List the versions and the labels of an agent's prompt, or the agents to choose from."""
    if agent_page is None:
        return page.render("prompt_agents.html", "prompts")
    found = versions.list_prompts(agent_page.tenant, cursor, PAGE_ROWS)
    found_labels = labels.list_labels(agent_page.tenant, label_cursor, _LABELS_SHOWN)
    return agent_page.render(
        "prompts.html",
        "prompts",
        prompts=found.rows,
        cursor=cursor,
        next_cursor=found.next_cursor,
        labels=found_labels.rows,
        label_cursor=label_cursor,
        next_label_cursor=found_labels.next_cursor,
    )


@router.post("")
def push_prompt(
    page: AgentPage,
    text: PromptTextField = "",
    notes: NotesField = "",
    label: Text = "",
    expected: PointedTo = 0,
) -> Response:
    """Push a version. If that fails, the form is shown again with what was typed."""
    # Browsers end lines with two characters, whatever the text had.
    text, notes, label = text.replace("\r\n", "\n"), notes.replace("\r\n", "\n").strip(), label.strip()
    try:
        new = _check_new_prompt(text, notes, label, expected)
        pushed = versions.push_prompt(page.tenant, new)
    except (InvalidRequestError, ConflictError) as error:
        return _show_form(page, text, notes, label, base=None, error=error, expected=expected)
    return page.redirect("prompts", str(pushed.prompt.version), done="pushed" if pushed.is_new else "unchanged")


@router.get("/new")
def show_form(page: AgentPage, base: Annotated[int | None, Query(ge=1)] = None) -> Response:
    """Show the form for a version. It begins with the text of the latest one, or of another one."""
    latest = versions.get_latest_prompt(page.tenant)
    begun = latest if base is None else versions.get_prompt(page.tenant, base)
    return _show_form(page, "" if begun is None else begun.text, "", "", base=base, latest=latest)


@router.get("/compare")
def compare(page: AgentPage, old: VersionOrLabel = "", new: VersionOrLabel = "") -> Response:
    """Compare two versions, given by their numbers or labels."""
    before, after = _resolve(page, "old", old), _resolve(page, "new", new)
    lines = read_diff(diff_texts(before.text, after.text, "before", "after"))  # the page has a head of its own
    return page.render(
        "prompt_diff.html",
        "prompts",
        before=before,
        after=after,
        lines=lines[:MAX_LINES],
        has_more=len(lines) > MAX_LINES,
        given=(old.strip(), new.strip()),
    )


@router.get("/labels/{label}")
def show_label(page: AgentPage, label: LabelPath, cursor: CursorParam = None, done: str = "") -> Response:
    """Show where a label points, and its history."""
    moves = labels.list_label_moves(page.tenant, label, cursor, PAGE_ROWS)
    return page.render(
        "prompt_label.html",
        "prompts",
        name=label,
        label=labels.find_label(page.tenant, label),
        before=labels.find_rollback_version(page.tenant, label),
        moves=moves.rows,
        cursor=cursor,
        next_cursor=moves.next_cursor,
        done=done,
    )


@router.post("/labels/{label}/move")
def move_label(
    page: AgentPage, label: LabelPath, version: Text = "", expected: PointedTo = 0, is_confirmed: IsConfirmed = False
) -> Response:
    """Point a label to a version."""
    _check_confirmed(is_confirmed)
    number = _resolve(page, "version", version).version
    labels.move_label(page.tenant, label, number, expected)
    return page.redirect("prompts", "labels", label, done="moved")


@router.post("/labels/{label}/rollback")
def roll_back_label(
    page: AgentPage, label: LabelPath, expected: PointedTo = 0, is_confirmed: IsConfirmed = False
) -> Response:
    """Point a label to the version that it had before."""
    _check_confirmed(is_confirmed)
    labels.roll_back_label(page.tenant, label, expected)
    return page.redirect("prompts", "labels", label, done="rolled_back")


@router.post("/labels/{label}/remove")
def remove_label(
    page: AgentPage, label: LabelPath, expected: PointedTo = 0, is_confirmed: IsConfirmed = False
) -> Response:
    """Remove a label."""
    _check_confirmed(is_confirmed)
    labels.remove_label(page.tenant, label, expected)
    return page.redirect("prompts", "labels", label, done="removed")


# After the pages above, which have names in the place of the number.
@router.get("/{version}")
def show_prompt(page: AgentPage, version: VersionPath, done: str = "") -> Response:
    """Show a version with its text and placeholders."""
    prompt = versions.get_prompt(page.tenant, version)
    found_labels = labels.list_labels(page.tenant, None, _LABELS_SHOWN).rows
    return page.render(
        "prompt.html",
        "prompts",
        prompt=prompt,
        spans=locate_placeholders(prompt.text),
        labels=found_labels,
        latest=versions.get_latest_prompt(page.tenant),
        done=done,
    )


@router.post("/{version}/label")
def label_version(
    page: AgentPage, version: VersionPath, label: Text = "", is_confirmed: IsConfirmed = False
) -> Response:
    """Point a label, which need not exist, to a version."""
    label = label.strip()
    _check_label(label)
    _check_confirmed(is_confirmed)
    labels.move_label(page.tenant, label, version)
    return page.redirect("prompts", "labels", label, done="moved")


def _show_form(
    page: ProjectPage,
    text: str,
    notes: str,
    label: str,
    *,
    base: int | None,
    latest: versions.AgentPrompt | None = None,
    error: ApiError | None = None,
    expected: int = 0,
) -> Response:
    if latest is None:
        latest = versions.get_latest_prompt(page.tenant)
    values: dict[str, Any] = {"text": text, "notes": notes, "label": label, "base": base, "latest": latest}
    found_labels: Sequence[Any] = labels.list_labels(page.tenant, None, _LABELS_SHOWN).rows
    values |= {"labels": found_labels, "error": error, "is_outdated": isinstance(error, ConflictError)}
    response = page.render("prompt_form.html", "prompts", known_version=expected, **values)
    response.status_code = int(HTTPStatus.OK if error is None else error.status)
    return response


def _check_new_prompt(text: str, notes: str, label: str, expected: int) -> versions.NewPrompt:
    if label:
        _check_label(label)
    try:
        PromptIn(text=text, notes=notes, expected_version=expected)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidRequestError(f"{first['loc'][0]}: {first['msg']}", field=str(first["loc"][0])) from None
    return versions.NewPrompt(text, notes, [label] if label else [], expected)


def _check_label(label: str) -> None:
    if not is_prompt_label(label):
        message = "label: use up to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter, such as production"
        raise InvalidRequestError(message, field="label")


def _check_confirmed(is_confirmed: bool) -> None:
    if not is_confirmed:
        raise InvalidRequestError("tick the box to confirm: agents that ask for this label get another prompt")


def _resolve(page: ProjectPage, field: str, given: str) -> versions.AgentPrompt:
    """Return the version that a number or a label stands for."""
    given = given.strip()
    if given.isascii() and given.isdigit() and 0 < len(given) <= 15:
        return versions.get_prompt(page.tenant, int(given))
    if not is_prompt_label(given):
        raise InvalidRequestError(f"{field}: use the number of a version, or a label", field=field)
    return labels.get_labeled_prompt(page.tenant, given)
