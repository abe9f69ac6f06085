"""Files of codes that users have, with their right results.

The first table has the reduced forms of files from public exports and bug reports. The second table has further files
of the same kinds, in other languages and shapes.
"""

from tests.files_people_have import Case

TWO = ("AAAA-1111", "BBBB-2222")
LINES = "AAAA-1111\nBBBB-2222\n"


def two(name: str, first: str, *options: str, notice: str | None = "was read as a header") -> Case:
    """A file with one more line above two codes."""
    return Case(name, f"{first}\n{LINES}".encode(), options, TWO, notice=notice)


def text(name: str, content: str, *accepted: str, options: tuple[str, ...] = (), notice: str | None = None) -> Case:
    """A file of which every line is accepted, except for headers and blank lines."""
    return Case(name, content.encode(), options, accepted, notice=notice)


def some(name: str, content: str, accepted: tuple[str, ...], rejected: dict[int, str], *options: str) -> Case:
    """A file with rejected lines."""
    return Case(name, content.encode(), options, accepted, rejected)


def refused(name: str, content: str, message: str, *options: str) -> Case:
    """A file that is refused as a whole."""
    return Case(name, content.encode(), options, refused=message)


REDUCED = [
    two("header-italian.csv", "Codice sconto", notice="line 1 'Codice sconto' was read as a header"),
    two("header-pin.csv", "PIN", notice="line 1 'PIN' was read as a header"),
    two("header-with-year.csv", "Coupon Codes 2026", notice="line 1 'Coupon Codes 2026' was read as a header"),
    two("header-voucher-id.csv", "Voucher ID", notice="line 1 'Voucher ID' was read as a header"),
    text("key-and-address.csv", "Key,Address 1\nAAAA-1111,Leeds\nBBBB-2222,York\n", *TWO, notice="'Key'"),
    text("comments.txt", f"# codes for spring\n# do not share\n{LINES}", *TWO,
         notice="lines 1 to 2 begin with # and were skipped as comments"),
    text("comment-above-header.csv", "# exported by shop 3.1\ncode,value\nA-1111,5\nB-2222,5\n", "A-1111", "B-2222",
         notice="line 1 begins with # and was skipped as a comment"),
    text("title-row.csv",
         "Spring campaign 2026,,\r\ncode,value,until\r\nAAAA-1111,10,2026-05-01\r\nBBBB-2222,10,2026-05-01\r\n", *TWO,
         notice="line 1 was skipped as a title"),
    some("total-row.csv", "code,value\nAAAA-1111,10\nBBBB-2222,10\nTotal,20\n", TWO, {4: "total"}),
    some("two-exports-joined.csv", "Coupon Code,Value\nA-1111,5\nCoupon Code,Value\nB-2222,5\n",
         ("A-1111", "B-2222"), {3: "header"}),
    some("case.txt", "abcd-1234\nABCD-1234\nAbcd-1234\n", ("abcd-1234",), {2: "case", 3: "case"}),
    text("excel-text-formula.csv", 'code\n="00123"\n"=""00456"""\n', "00123", "00456",
         notice='2 codes written as a formula ="…"'),
    text("smart-quotes.txt", "\u201cAAAA-1111\u201d\n\u201eBBBB-2222\u201c\n", *TWO,
         notice="2 codes in quotes: the quotes were removed"),
    some("ragged.csv", "code,value\nAAAA-1,10\nBBBB-2\nCCCC-3,10,extra\nDDDD-4,10\n",
         ("AAAA-1", "BBBB-2", "DDDD-4"), {4: "columns"}),
    text("trailing-cells-left-out.csv",
         "code,value,note\r\n" + "".join(f"XL-{n:03},10{',n' * (n < 16)}\r\n" for n in range(40)),
         *(f"XL-{n:03}" for n in range(40)), notice="24 rows without all cells"),
    refused("addresses-as-codes.txt", "ada@example.org\nbob@example.org\n",
            "these are e-mail addresses: did you mean `coupons group import`?"),
    text("address-and-code.csv", "email,code\nada@example.org,A-1\nbob@example.org,B-2\n", "A-1", "B-2",
         notice="column 1 'email' was ignored: it contains e-mail addresses"),
    some("look-alikes.txt", "SAVE10A\nS\u0410VE10A\nSAV\u0415-20\n\uff21\uff22\uff23\uff11\nO0O0\nl1I1\n",
         ("SAVE10A", "O0O0", "l1I1"), {2: "lookalike", 3: "lookalike", 4: "lookalike"}),
    some("dashes.txt", "AAAA-1111\nAAAA\u20131111\nAAAA\u20111111\nAAAA\u22121111\nAAAA\u20141111\n",
         ("AAAA-1111",), dict.fromkeys((2, 3, 4, 5), "lookalike")),
    text("trailing-separator-no-header.csv", "AAAA-1111;\r\nBBBB-2222;\r\n", *TWO),
    text("sep-space.csv", "sep= \r\ncode value\r\nAAAA-1 10\r\n", "AAAA-1"),
    text("used-column.csv",
         '"Coupon Code",Created,Used,"Times Used"\nSPR-AAAA,"Jun 29, 2026, 11:05:23 PM",No,0\n'
         'SPR-BBBB,"Jun 29, 2026, 11:05:23 PM",Yes,1\n', "SPR-AAAA", "SPR-BBBB", notice="'Used'"),
    text("used-column-chosen.csv", "Coupon Code,Used\nSPR-AAAA,No\nSPR-BBBB,Yes\n", "SPR-AAAA",
         options=("--where", "Used=No"), notice="1 row did not match --where"),
    text("double-bom.csv", "\ufeff\ufeffcode\nAAAA-1\n", "AAAA-1"),
    refused("login-page.csv", "<!DOCTYPE html>\n<html><head><title>Login</title></head>\n<body>\n"
            "<h1>Please sign in</h1>\n</body></html>\n", "looks like a web page"),
    refused("codes.json.txt", '{\n  "codes": [\n    "AAAA-1111",\n    "BBBB-2222"\n  ]\n}', "looks like"),
    text("replace-header-only.csv", "code\r\n"),
    some("replace-mostly-bad.txt", "D-4444\nE\u00a05\nF\u00a06\nG\u00a07\n", ("D-4444",),
         dict.fromkeys((2, 3, 4), "spaces")),
]  # fmt: skip

_HEADERS = {
    "english": ("Discount Code", "Coupon codes:", "VOUCHER_CODE", "voucherNumber", "Gift Card Number", "Serial No."),
    "german": ("Gutscheincode", "Gutschein-Nr.", "Rabattcode 2026", "Einlösecode", "Aktionscodes"),
    "french": ("Code promo", "Code de réduction", "N° de bon", "Codes cadeaux", "Bon d'achat"),
    "spanish": ("Código de descuento", "Codigos promocionales", "Cupón", "Código del vale"),
    "italian": ("Codici sconto 2026", "Codice promozionale", "Buono sconto", "Codice buono"),
    "portuguese": ("Código de desconto", "Cupom", "Código do cupão", "Códigos promocionais"),
    "dutch": ("Kortingscode", "Actiecodes", "Waardebonnummer", "Cadeaubon"),
    "polish": ("Kod rabatowy", "Kody promocyjne", "Numer kuponu", "Kupon zniżkowy"),
    "swedish": ("Rabattkod", "Presentkortskod", "Kupongkoder", "Värdekod"),
    "danish": ("Rabatkode", "Kuponkode", "Gavekort", "Tilbudskoder"),
    "other": ("Alennuskoodi", "Slevový kód", "Промокод", "Код купона", "Κωδικός κουπονιού", "クーポンコード", "优惠码"),
    "weak": ("Key", "PINs", "Token", "Coupon ID", "License key", "Schlüssel"),
}

HEADERS = [
    *(two(f"header-{language}-{number}.{'csv' if number % 2 else 'txt'}", name)
      for language, names in _HEADERS.items() for number, name in enumerate(names)),
    two("header-by-shape.txt", "Zniżka jesienna"),
    two("header-by-shape-upper.txt", "AUTUMN OFFER", notice="was read as a header"),
    two("header-column-of-names.csv", "Name"),
    two("header-quoted.csv", '"Gutschein Code"'),
    two("header-typographic-quotes.txt", "\u201eCode promo\u201c"),
    text("first-code-without-a-digit.txt", "GIFT-KHBNQZ\nGIFT-A1B2C3\nGIFT-9ZX8C7\nGIFT-4R5T6Y\n",
         "GIFT-KHBNQZ", "GIFT-A1B2C3", "GIFT-9ZX8C7", "GIFT-4R5T6Y"),
    text("first-random-code-without-a-digit.txt", "KHBNQZ\nA1B2C3\n9ZX8C7\n4R5T6Y\n",
         "KHBNQZ", "A1B2C3", "9ZX8C7", "4R5T6Y"),
    *(
        Case(f"framed-{number}.txt", "".join(frame.format(code) for code in ("AB12CD", "EF34GH", "XY56ZA")).encode(),
             refused="most lines have a bullet, brackets, a label or a tag around the code")
        for number, frame in enumerate(("- {}\n", "('{}'),\n", "code={}\n", "{}<br>\n"))
    ),
    Case("framed-on-request.txt", b"[AB12CD]\n[EF34GH]\n", ("--no-header",), accepted=("[AB12CD]", "[EF34GH]")),
    Case("codes-like-totals.txt", b"COUNT 5\nCOUNT 10\nCOUNT 15\n", accepted=("COUNT 5", "COUNT 10", "COUNT 15")),
    Case("rows-without-code.csv", b"code;name\nAB-1;Ann\n;Bob\n;\n", accepted=("AB-1",),
         notice="1 row without a code counted as blank"),
    some("lines-and-borders.txt", "code\n--------\nAB12KDKX\n+------+\n====\n|---|---|\n_A-1\n", ("AB12KDKX", "_A-1"),
         {2: "comment", 4: "comment", 5: "comment", 6: "comment"}),
    Case("serials-and-keys.csv", b"Serial Number,Activation Key\n1,AB-1X\n2,AB-2X\n3,AB-3X\n",
         refused="columns 1, 2 may all hold the codes: specify one of them with --column"),
    Case("claim-codes-and-serials.csv", b"Claim Code,Serial Number\nAB-1X,1\nAB-2X,2\n", accepted=("AB-1X", "AB-2X")),
    Case("title-with-digit.csv", b"SOMMER26\nCode,N\nAB-1X,1\nAB-2X,2\n", accepted=("AB-1X", "AB-2X"),
         notice="line 1 was skipped as a title"),
    Case("two-titles-one-a-name.csv", b"Codes\n\nExport\n\nCode;N\nAB-1X;1\n", accepted=("AB-1X",)),
    Case("title-above-unknown-names.csv", b"SOMMER26\nFoo,N\nAB-1X,1\nAB-2X,2\n",
         refused="line 1: the line has one cell, but most lines below it have more: use --skip-lines N"),
    Case("word-above-codes.txt", f"SUMMER\n{LINES}".encode(), refused="line 1: could be a header or a code"),
    Case("title-with-year-above-codes.txt", f"SPRING CAMPAIGN 2026\n{LINES}".encode(),
         refused="--header or --no-header"),
    Case("pin-among-words.txt", b"PIN\nKEY\nSUN\nFUN\n", refused="--header or --no-header"),
    text("word-above-codes-no-header.txt", f"SUMMER\n{LINES}", "SUMMER", *TWO, options=("--no-header",)),
    text("word-above-codes-header.txt", f"SUMMER\n{LINES}", *TWO, options=("--header",)),
    text("codes-are-words.txt", "SUMMER\nAUTUMN\nWINTER\n", "SUMMER", "AUTUMN", "WINTER"),
    text("codes-with-a-year.txt", "GIFT2026\nGIFT2027\nPROMO10\n", "GIFT2026", "GIFT2027", "PROMO10"),
    some("one-code-above-links.txt", "SHOWN-1\n" + "https://x.example.org\n" * 3, ("SHOWN-1",),
         dict.fromkeys((2, 3, 4), "url")),
    text("one-code.txt", "WELCOME", "WELCOME"),
    text("codes-of-two-lengths.txt", "A1\nABCD-1234\nX-99\n", "A1", "ABCD-1234", "X-99"),
    text("header-two-rows-of-titles.csv",
         "Report,\nShop 3,\n\nGutscheincode,Wert\nAAAA-1111,10\nBBBB-2222,10\n", *TWO,
         notice="lines 1 to 2 were skipped as titles"),
    text("title-above-unknown-names.csv", "Summer sale;;\nNr;Kupon;Wert\n1;AAAA-1111;5\n2;BBBB-2222;5\n", *TWO,
         notice="line 1 was skipped as a title"),
    text("title-above-one-column.txt", f"All codes of the spring campaign\nCodice sconto\n{LINES}", *TWO,
         notice="line 1 was skipped as a title"),
    text("preamble.csv", "Campaign,Spring,\nCode,Value,Until\nA-1,1,x\nB-2,2,x\n", "A-1", "B-2",
         notice="line 1 was skipped as a title"),
    refused("numbered.txt", "1. AAAA-1111\n2. BBBB-2222\n", "the lines begin with their numbers"),
    text("skip-lines.csv", "x;1\ny;2;3\ncode;eur\nA-1;5\nB-2;5\n", "A-1", "B-2", options=("--skip-lines", "2")),
    text("skip-lines.txt", "WELCOME 1\nWELCOME 2\n" + LINES, *TWO, options=("--skip-lines", "2")),
    text("comment-between-title-and-header.csv", "# a\n\n# b\ncode;eur\nA-1;5\n", "A-1",
         notice="lines 1, 3 begin with #"),
    text("codes-begin-with-hash.txt", "#A11\n#B22\n#C33\n", "#A11", "#B22", "#C33"),
    some("hash-in-the-middle.txt", f"{LINES}# second batch\nCCCC-3333\n", (*TWO, "CCCC-3333"), {3: "comment"}),
    refused("only-comments.txt", "# a b\n" * 150, "use --skip-lines N"),
]  # fmt: skip

_TOTALS = (
    *(
        "Total",
        "TOTAL: 500",
        "Grand total 500",
        "Summe",
        "Gesamt: 12",
        "Somme : 5",
        "Suma",
        "Totale 12",
        "Totaal",
        "Razem: 5",
    ),
    *(
        "Summa",
        "I alt 12",
        "Итого: 5",
        "500 codes",
        "(500 rows affected)",
        "Anzahl Codes: 500",
        "Total number of codes: 12",
    ),
    *("Number of codes: 5", "Zwischensumme", "-- end of file --", "Total (3)"),
)
_MISSING = (
    "NULL",
    "null",
    "N/A",
    "n/a",
    "None",
    "nan",
    "NaN",
    "(null)",
    "-",
    "--",
    "nil",
    "<null>",
    "[none]",
    "\\N",
    "k.A.",
    "undefined",
)
_REPEATED = ("code", "Coupon Code", "coupon_code", "VOUCHER CODE", "Gutscheincode", "Codice sconto", "promo-code")
_ADDRESSES = ("ada@example.org", "Ada <ada@example.org>", "b.c+d@mail.example.co.uk", "<x@example.org>")


def each_rejected(name: str, lines: tuple[str, ...], reason: str) -> Case:
    """A file of codes with other lines among them."""
    codes = [f"AAAA-{number:04}" for number in range(len(lines) + 2)]
    mixed = [codes[0], *(each for pair in zip(codes[1:], lines, strict=False) for each in pair), codes[-1]]
    rejected = {number: reason for number, line in enumerate(mixed, 1) if line in lines}
    return Case(name, "\n".join(mixed).encode(), (), tuple(codes), rejected)


OTHER_LINES = [
    each_rejected("totals.txt", _TOTALS, "total"),
    each_rejected("missing-values.txt", _MISSING, "no_value"),
    each_rejected("repeated-headers.txt", _REPEATED, "header"),
    each_rejected("addresses-among-codes.txt", _ADDRESSES, "address"),
    some("comments-behind-codes.txt", f"{LINES}CCCC-3333 # third\n", TWO, {3: "comment"}),
    some("labels.txt", f"{LINES}Code: CCCC-3333\n", TWO, {3: "header"}),
    some("total-without-cells.csv", "code;value\nA-1;5\nB-2;5\nSumme\n", ("A-1", "B-2"), {4: "total"}),
    some("total-in-another-column.csv", "value;code\n5;A-1\n5;B-2\nSumme: 10\n", ("A-1", "B-2"), {4: "columns"}),
    some("own-header-repeated.csv", "Zniżka jesienna;x\nA-1;5\nB-2;6\nZniżka jesienna;x\nC-3;7\n",
         ("A-1", "B-2", "C-3"), {4: "header"}, "--column", "1"),
    text("codes-like-totals.txt", "TOTAL123\nSUM-2026\nTOTALLY\nNONE1\nNA-1\nTotal-1\n",
         "TOTAL123", "SUM-2026", "TOTALLY", "NONE1", "NA-1", "Total-1", options=("--no-header",)),
    refused("addresses-with-header.csv", "email;name\nada@example.org;Ada\nbob@example.org;Bob\n",
            "these are e-mail addresses"),
    refused("addresses-under-code.csv", "code;name\nada@example.org;Ada\nbob@example.org;Bob\n",
            "these are e-mail addresses"),
    refused("addresses-with-names.txt", "Ada <ada@example.org>\nBob <bob@example.org>\n", "coupons group import"),
]  # fmt: skip

COLUMNS = [
    text("codes-and-values-no-header.csv", "AAAA-1111;10\nBBBB-2222;10\n", *TWO,
         notice="column 1 was read as the codes"),
    text("row-numbers-no-header.csv", "1,AAAA-1111,2026-05-01\n2,BBBB-2222,2026-05-01\n", *TWO,
         notice="column 2"),
    text("unknown-name.csv", "Bezeichner;Wert;Datum\nAAAA-1111;5;01.05.2026\nBBBB-2222;5;01.05.2026\n", *TWO,
         notice="column 1 'Bezeichner' was read as the codes"),
    text("name-and-code-unknown.csv", "Nom;Sésame\nAda;AAAA-1111\nBob;BBBB-2222\n", *TWO, notice="'Sésame'"),
    text("address-and-unknown.csv", "E-Mail;X\nada@example.org;AAAA-1111\nbob@example.org;BBBB-2222\n", *TWO,
         notice="'X'"),
    text("empty-columns.csv", ";;code;;\n;;AAAA-1111;;\n;;BBBB-2222;;\n", *TWO),
    text("empty-leading-column.csv", ",AAAA-1111\n,BBBB-2222\n", *TWO),
    text("weak-and-strong-name.csv", "Key,Coupon Code,PIN\nx1,AAAA-1111,1\nx2,BBBB-2222,2\n", *TWO),
    text("given-by-name.csv", "Key,Coupon Code\nx1,AAAA-1111\nx2,BBBB-2222\n", "x1", "x2", options=("--column", "Key")),
    text("given-by-number.csv", "AAAA-1111,X-1\nBBBB-2222,X-2\n", "X-1", "X-2", options=("--column", "2")),
    refused("two-columns-of-codes.csv", "AAAA-1111,X-1\nBBBB-2222,X-2\n", "specify the code column"),
    text("name-of-the-coupon.csv", "Coupon;Discount Code\nSpring;A-1\nSpring;B-2\n", "A-1", "B-2"),
    refused("two-names.csv", "coupon;eur;code\nA1;5;B2\n", "ambiguous column name (1, 3)"),
    text("spanish-shop.csv",
         "Código,Descuento,Válido hasta,Usado\nAAAA-1111,10 %,31/12/2026,No\nBBBB-2222,10 %,31/12/2026,No\n", *TWO),
    text("polish-shop.csv", "Lp.;Kod rabatowy;Wartość;Ważny do\r\n1;AAAA-1111;10,00 zł;2026-12-31\r\n"
         "2;BBBB-2222;10,00 zł;2026-12-31\r\n", *TWO),
    text("dutch-shop.csv", "Naam\tKortingscode\tBedrag\nLente\tAAAA-1111\t5,00\nLente\tBBBB-2222\t5,00\n", *TWO),
    text("danish-shop.csv", "Rabatkode|Beløb\nAAAA-1111|10\nBBBB-2222|10\n", *TWO),
]  # fmt: skip

SPELLING = [
    text("guillemets.txt", "«AAAA-1111»\n»BBBB-2222«\n", *TWO, notice="2 codes in quotes"),
    text("single-quotes.txt", "'AAAA-1111'\n\u2018BBBB-2222\u2019\n", *TWO, notice="2 codes in quotes"),
    text("plain-quotes.txt", '"AAAA-1111"\n"BBBB-2222"\n', *TWO),
    text("swedish-quotes.csv", "code;x\n\u201dAAAA-1111\u201d;1\n\u201dBBBB-2222\u201d;2\n", *TWO, notice="in quotes"),
    text("apostrophes.csv", "code\n'00123\n'00456\n", "00123", "00456", notice="2 codes with a leading apostrophe"),
    text("one-apostrophe.txt", "00123\n'00456\n", "00123", "00456", notice="1 code with a leading apostrophe"),
    text("formula-in-table.csv", 'code;x\n"=""0012""";1\n="0034";2\n', "0012", "0034", notice="formula"),
    text("formulas.txt", '="00123"\n="00456"\n', "00123", "00456", notice="formula"),
    text("quotes-inside.txt", 'AB"CD1\nEF\'GH2\n"A" or "B"\n', 'AB"CD1', "EF'GH2", '"A" or "B"',
         options=("--no-header",)),
    text("one-script.txt", "ПРОМО-1\nПРОМО-2\nΔΩΡΟ-3\nגשם4\n", "ПРОМО-1", "ПРОМО-2", "ΔΩΡΟ-3", "גשם4"),
    text("accents.txt", "ÉTÉ-1\nŁÓDŹ-2\nGRÜN-3\nÅRET-4\n", "ÉTÉ-1", "ŁÓDŹ-2", "GRÜN-3", "ÅRET-4"),
    some("scripts.txt", "AB12\nА\u0042B2\nAΒC3\nПРОMО4\nＡＢ12\nAB\u06f1\n", ("AB12",),
         dict.fromkeys((2, 3, 4, 5, 6), "lookalike")),
    text("look-alikes-allowed.txt", "AB-12\nАB-13\nAB\u201314\n", "AB-12", "АB-13", "AB\u201314",
         options=("--allow-lookalikes",)),
    some("dash-between-two-kinds.txt", "A-B\u20131\nA-B-2\n", ("A-B-2",), {1: "lookalike"}),
    some("spelled-character.txt", "AAAA-1\nAAAA<U+2010>2\n", ("AAAA-1",), {2: "spelled"}),
]  # fmt: skip

TABLES = [
    text("short-rows.csv", "code;value;note\nA-1\nB-2;5\nC-3;5;x\n", "A-1", "B-2", "C-3",
         notice="2 rows without all cells"),
    some("short-row-without-code.csv", "value;code\n5;A-1\n5\n", ("A-1",), {3: "columns"}),
    some("long-row.csv", "code;value\nA-1;5;x\nB-2;5;\nC-3;5\n", ("B-2", "C-3"), {2: "columns"}),
    text("blank-after-quote.csv", 'code ; name\n"A-1"  ; "Ada" \n"B-2" ;"Bob"\n', "A-1", "B-2",
         notice="2 rows with unusual quotes"),
    text("backslash-quotes.csv", 'name;code\n"The \\"Best\\" Ltd";A-1\nB;B-2\n', "A-1", "B-2",
         notice="1 row with unusual quotes"),
    some("text-after-quote.csv", 'name;code\n"x"y;A-1\nB;B-2\n', ("B-2",), {2: "quotes"}),
    some("quote-not-closed.csv", 'name;code\n"x;A-1\nB;B-2\nC;C-3\n', ("B-2", "C-3"), {2: "quotes"}),
    some("rest-of-an-invalid-record.csv", 'code;note;x\nA-1;"1 High Street\nLeeds"!;x\nB-2;y;x\n', ("B-2",),
         {2: "quotes", 3: "quotes"}),
    text("quoted-line-breaks.csv", 'note;code\n"1 High Street\r\nLeeds";A-1\n"x\n\ny";B-2\n', "A-1", "B-2"),
    text("sep-line.csv", "sep=;\ncode;eur\nA-1;5,00\nB-2;5,00\n", "A-1", "B-2"),
    text("sep-line-quoted-tab.csv", '"sep=\t"\ncode\tx\nA-1\t1\n', "A-1"),
    text("decimal-commas.txt", "code;eur\nA-1;1,50\nB-2;2,50\n", "A-1", "B-2"),
    text("title-with-commas.csv", "Codes, spring, 2026\ncode;eur\nA-1;5\nB-2;5\nC-3;5\n", "A-1", "B-2", "C-3"),
    text("code-with-comma.txt", "A-1\nB-2,5\nC-3\nD-4\n", "A-1", "B-2,5", "C-3", "D-4"),
    text("blank-lines.csv", "\n\ncode;eur\n\nA-1;5\n;\nB-2;5\n", "A-1", "B-2"),
]  # fmt: skip

CASES = [*REDUCED, *HEADERS, *OTHER_LINES, *COLUMNS, *SPELLING, *TABLES]
