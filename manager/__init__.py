"""The ops manager: sees many sprites from outside, keeps what is known of them in files."""
