"""How times are written where nobody says otherwise."""
