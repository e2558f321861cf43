"""The certificate of a tuning profile, statement by statement, as run files and plans show it."""

from rendermill.actors.engine.tuning.profile import Profile
from rendermill.manifests.output.tuning_report import CertifiedStatement


def certified_statements(profile: Profile) -> list[CertifiedStatement]:
    """Return the statements of a profile's certificate; none if nothing has been tested."""
    statements = profile.certificate.statements
    if not any(statement.is_settled for statement in statements.values()):
        return []
    return [
        CertifiedStatement(statement=name, verdict=statement.verdict, reason=statement.reason)
        for name, statement in statements.items()
    ]
