KOREAN: dict[str, str] = {}
