"""What months, currencies, units and other signs beside numerals are called in Turkish."""

from __future__ import annotations

MONTHS = ["ocak", "şubat", "mart", "nisan", "mayıs", "haziran", "temmuz", "ağustos", "eylül", "ekim", "kasım", "aralık"]
# sign or code -> unit, hundredth; None where nobody counts hundredths
CURRENCIES: dict[str, tuple[str, str | None]] = {
    **dict.fromkeys(("₺", "TL", "TRY"), ("lira", "kuruş")),
    **dict.fromkeys(("$", "USD"), ("dolar", "sent")),
    **dict.fromkeys(("€", "EUR"), ("avro", "sent")),
    **dict.fromkeys(("£", "GBP"), ("sterlin", "peni")),
    **dict.fromkeys(("¥", "JPY"), ("yen", None)),
}
UNITS = {
    "km": "kilometre", "m": "metre", "cm": "santimetre", "mm": "milimetre",
    "km²": "kilometrekare", "km2": "kilometrekare", "m²": "metrekare", "m2": "metrekare", "cm²": "santimetrekare",
    "m³": "metreküp", "m3": "metreküp", "cm³": "santimetreküp", "ha": "hektar",
    "kg": "kilogram", "g": "gram", "gr": "gram", "mg": "miligram",
    "l": "litre", "L": "litre", "lt": "litre", "ml": "mililitre", "mL": "mililitre", "cl": "santilitre",
    "°C": "derece", "℃": "derece", "°": "derece", "°F": "derece fahrenhayt",
    "sa": "saat", "dk": "dakika", "sn": "saniye", "ms": "milisaniye",
    "KB": "kilobayt", "MB": "megabayt", "GB": "gigabayt", "TB": "terabayt",
    "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz",
    "V": "volt", "W": "vat", "kW": "kilovat", "MW": "megavat", "kWh": "kilovatsaat",
    "KM": "kilometre", "CM": "santimetre", "MM": "milimetre", "KG": "kilogram",
}  # fmt: skip
SPEEDS = {
    **dict.fromkeys(("km/sa", "km/h"), ("saatte", "kilometre")),
    **dict.fromkeys(("m/s", "m/sn"), ("saniyede", "metre")),
    **dict.fromkeys(("km/s", "km/sn"), ("saniyede", "kilometre")),
}
SYMBOLS = {
    "₺": "lira",
    "$": "dolar",
    "€": "avro",
    "£": "sterlin",
    "¥": "yen",
    "&": "ve",
    "°": "derece",
    "²": "kare",
    "³": "küp",
}
OPERATORS = {"+": "artı", "=": "eşittir", "×": "çarpı", "x": "çarpı", "*": "çarpı", "÷": "bölü"}
VULGAR = {"½": "yarım", "¼": "çeyrek", "¾": "dörtte üç"}
VULGAR_AFTER = {"½": "buçuk", "¼": "çeyrek", "¾": "dörtte üç"}
