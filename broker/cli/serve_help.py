"""The help of `fanwire serve`: the most common options first, and all of them, in groups, with --help-all."""

from collections.abc import Iterator, Sequence

import click

from fanwire.client.cli.command import Command

COMMON = (
    "config_file",
    "host",
    "port",
    "unix_path",
    "auth",
    "tls_cert",
    "tls_key",
    "insecure",
    "rules",
    "max_connections",
    "max_pending_bytes",
    "log_level",
)
"""What `--help` shows, by the names of the parameters."""

GROUPS: dict[str, tuple[str, ...]] = {
    "Settings and log": ("config_file", "log_level", "log_format"),
    "Addresses": (
        "host", "port", "path", "backlog", "unix_path", "unix_mode", "admin_host", "admin_port", "proxy_protocol",
        "trusted_proxies",
    ),
    "TLS": ("tls_cert", "tls_key", "tls_client_ca", "tls_client_certs", "tls_min_version"),
    "Access": ("auth", "insecure", "allowed_origins", "require_hello", "auth_failures"),
    "Limits on connections": (
        "max_connections", "max_connections_per_address", "max_connections_per_user", "max_opening", "connect_rate",
        "unlimited_addresses", "idle_timeout_s",
    ),
    "Limits on what a client sends": (
        "max_message_bytes", "max_body_bytes", "max_envelopes", "publish_rate", "publish_volume_bytes",
        "user_publish_rate", "user_publish_volume_bytes",
    ),
    "Subscriptions": ("max_subscriptions", "max_total_subscriptions", "max_patterns"),
    "Slow subscribers": (
        "queue", "queue_grace_s", "max_queue", "max_pending_bytes", "max_total_pending_bytes", "stall_timeout_s",
        "max_age_s", "conflating_buffer_bytes",
    ),
    "Topics": ("rules", "max_stored_bytes", "max_stored_topics", "report_interval_s", "presence_grace_s"),
    "Timeouts": (
        "ping_interval_s", "ping_timeout_s", "handshake_timeout_s", "hello_timeout_s", "message_timeout_s",
        "http_request_timeout_s", "http_idle_timeout_s",
    ),
    "Ending": ("linger_s", "drain_delay_s", "drain_timeout_s", "drain_spread_s"),
}  # fmt: skip
"""What `--help-all` shows. An option that is in none of them is in a group of its own at the end."""

_ALL = f"{__name__}.all"


class ServeCommand(Command):
    """A command with too many options for one screen."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the common options, or all of them."""
        options = {
            param.name or "": record
            for param in self.get_params(ctx)
            if (record := param.get_help_record(ctx)) is not None
        }
        help_option = self.get_help_option(ctx)
        helps = ("help_all", help_option.name or "" if help_option is not None else "")
        groups = _all_groups(options) if ctx.meta.get(_ALL) else [("Common options", (*COMMON, *helps))]
        for title, names in groups:
            with formatter.section(title):
                formatter.write_dl([options[name] for name in names if name in options])


def _all_groups(options: dict[str, tuple[str, str]]) -> Iterator[tuple[str, Sequence[str]]]:
    yield from GROUPS.items()
    shown = {name for names in GROUPS.values() for name in names}
    yield "Other options", [name for name in options if name not in shown]


def _show_all(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


help_all_option = click.option(
    "--help-all",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_all,
    help="Show all options, and exit.",
)
