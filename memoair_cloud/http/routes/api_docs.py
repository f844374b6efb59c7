"""The page of the API's description, from files of this server: it works offline."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from memoair_cloud.assets.files import asset_url

router = APIRouter(include_in_schema=False)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MemoAir cloud API</title>
<link rel="stylesheet" href="{style}">
<link rel="icon" href="data:,">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript; its source is <a href="/openapi.json">/openapi.json</a>.</noscript>
<script src="{bundle}"></script>
<script src="{start}"></script>
</body>
</html>
"""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
}


@router.get("/docs")
async def show_api_docs() -> HTMLResponse:
    """Return the page."""
    folder = "vendored/swagger-ui-dist"
    page = _PAGE.format(
        style=asset_url(f"{folder}/swagger-ui.css"),
        bundle=asset_url(f"{folder}/swagger-ui-bundle.js"),
        start=asset_url("docs.js"),
    )
    return HTMLResponse(page, headers=_HEADERS)
