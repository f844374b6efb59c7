"""Guards of who may reach what: identities, tenants, the dashboard."""

from guards.guard import Guard

RUNTIME = "memoair_runtime"
CLOUD = "memoair_cloud"
ACCESS = "tests/dashboard/test_access.py"

IDENTITY = (
    Guard(
        "a runtime answers only under loopback names",
        f"{RUNTIME}/http/server.py",
        "        if hosts and not _is_loopback_host(hosts[0]):",
        "        if False:",
        ("tests/runtime/test_http_bad_input.py", "-k", "host"),
    ),
    Guard(
        "a runtime does not answer web pages",
        f"{RUNTIME}/http/server.py",
        '        if "Origin" in self.headers:',
        "        if False:",
        ("tests/runtime/test_http_bad_input.py", "-k", "origin"),
    ),
    Guard(
        "a runtime compares the token",
        f"{RUNTIME}/http/token_check.py",
        'hmac.compare_digest(token.strip().encode("latin-1"), self._token_bytes)',
        "bool(token)",
        ("tests/runtime/test_http_bad_input.py", "-k", "token"),
    ),
    Guard(
        "a runtime serves one user",
        f"{RUNTIME}/memory/session_writer.py",
        "        if known_metadata.user and known_metadata.user.id not in (None, self._folder.user_id):",
        "        if False:",
        ("tests/runtime/test_http_contract.py", "-k", "another"),
    ),
    Guard(
        "a dead holder has no lease",
        f"{RUNTIME}/storage/lease.py",
        "    return holder if holder is not None and holder.is_valid() and holder.is_alive() else None",
        "    return holder if holder is not None and holder.is_valid() else None",
        ("tests/runtime/test_lease.py",),
    ),
    Guard(
        "the cloud's client follows no redirects",
        "memoair_protocol/cloud_http.py",
        "            return self.adapter.send(request, stream=True, timeout=timeouts, proxies=self._find_proxies(url))",
        "            session = requests.Session()\n"
        '            session.mount("http://", self.adapter)\n'
        "            return session.send(request, stream=True, timeout=timeouts, proxies=self._find_proxies(url))",
        ("tests/protocol/test_cloud_http.py", "-k", "redirect or another_host"),
    ),
    Guard(
        "an identity header is sent once",
        f"{CLOUD}/http/request_guard.py",
        "            if repeated is not None:",
        "            if repeated is not None and False:",
        ("tests/cloud/test_http.py", "-k", "repeated"),
    ),
)

TENANCY = (
    Guard(
        "a query reaches one project",
        f"{CLOUD}/tenancy/scoped.py",
        "lambda model: model.project_id == project_id",
        "lambda model: model.project_id != None",
        ("tests/cloud/test_tenancy.py", "-k", "query or scope"),
    ),
    Guard(
        "a query reaches one account",
        f"{CLOUD}/tenancy/scoped.py",
        "lambda model: model.account_id == account_id",
        "lambda model: model.account_id != None",
        ("tests/cloud/test_tenancy.py", "-k", "another_account or query or lists"),
    ),
    Guard(
        "a row that is written belongs to the tenant",
        f"{CLOUD}/tenancy/scoped.py",
        "        session.check_owner(row)",
        "        pass",
        ("tests/cloud/test_tenancy.py", "-k", "scope or rejected or query"),
    ),
    Guard(
        "a key for one project reads no other",
        f"{CLOUD}/tenancy/scoped.py",
        "    if session.scope.only_project_id is not None:",
        "    if False:",
        (ACCESS, "-k", "one_project"),
    ),
    Guard(
        "a key for one project changes no other",
        f"{CLOUD}/tenancy/grants.py",
        "        if project_id or action is not Action.READ:",
        "        if False:",
        (ACCESS, "-k", "one_project"),
    ),
    Guard(
        "the scope of a key is checked",
        f"{CLOUD}/tenancy/grants.py",
        "        if not self.allows(action):",
        "        if False:",
        (ACCESS, "-k", "only"),
    ),
    Guard(
        "a revoked key is refused",
        f"{CLOUD}/tenancy/access.py",
        "select(ApiKey).where(is_key, ApiKey.revoked_at.is_(None))",
        "select(ApiKey).where(is_key)",
        ("tests/cloud/test_tenancy.py", "-k", "revoked"),
    ),
)

DASHBOARD = (
    Guard(
        "a form has the token of its person",
        f"{CLOUD}/dashboard/page_route.py",
        "        if not form_key or digest != hashlib.sha256(form_key.encode()).hexdigest():",
        "        if False:",
        (ACCESS, "-k", "form"),
    ),
    Guard(
        "a form of another site is refused",
        f"{CLOUD}/dashboard/page_route.py",
        'not in ("same-origin", "none")',
        "in ()",
        (ACCESS, "-k", "form"),
    ),
    Guard(
        "a form of evaluations is refused to readers before it is read",
        f"{CLOUD}/dashboard/project_page.py",
        "        self.tenant.grant.check(Action.WRITE, self.project.id)",
        "        pass",
        (ACCESS, "-k", "may_only_read"),
    ),
    Guard(
        "a context is text around its marks, too",
        f"{CLOUD}/dashboard/evaluated.py",
        "escape(context[position:start])",
        "Markup(context[position:start])",
        ("tests/dashboard/test_evaluated.py",),
    ),
    Guard(
        "a case that someone else has changed is not overwritten",
        f"{CLOUD}/dashboard/pages/evaluation_cases.py",
        'if row is not None and clean_text(fields.get("updated_at")) != row.updated_at.isoformat():',
        "if False:",
        ("tests/dashboard/test_evaluations.py", "-k", "wrong_as_json"),
    ),
    Guard(
        "attempts to sign in are throttled",
        f"{CLOUD}/http/key_throttle.py",
        "        limit.acquire(address)",
        "        pass",
        (ACCESS, "-k", "throttled"),
    ),
    Guard(
        "only a proxy of the settings names people",
        f"{CLOUD}/dashboard/visitor.py",
        " or not self.is_from_proxy(request):",
        ":",
        (ACCESS, "-k", "proxy"),
    ),
)
