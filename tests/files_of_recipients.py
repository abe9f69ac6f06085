"""Files of recipients that people have, in many languages and shapes, with the right result of each."""

import codecs

from tests.files_people_have import Case

ADA, BOB, CY = "ada@example.org", "bob@example.org", "cy@example.org"
SHOP = "example.org"


def text(*lines: str, end: str = "\n", encoding: str = "utf-8") -> bytes:
    return "".join(line + end for line in lines).encode(encoding)


def named(name: str, header: str) -> Case:
    """A file whose address column has a name of some language."""
    return Case(f"header-{name}", text(f"A;{header};B", f"x;{ADA};y", f"x;{BOB};y"), accepted=(ADA, BOB))


SHARED = (
    Case(
        "address-on-two-lines",
        b'Email,Address,First Name\nada@example.org,"1 High Street\nLeeds",Ada\n'
        b'bob@example.org,"2 High Street\r\nLeeds",Bob\ncy@example.org,3 High Street,Cy\n',
        accepted=(ADA, BOB, CY),
        notice="line breaks and tabs became blanks in 2 values",
    ),
    Case(
        "tab-in-cell",
        text("Email,Note", f"{ADA},a\tb"),
        accepted=(ADA,),
        notice="line breaks and tabs became blanks in 1 value",
    ),
    Case(
        "long-note",
        text("Email,Note", f"{ADA},{'x' * 1_300}", f"{BOB},ok"),
        accepted=(ADA, BOB),
        notice="note: 1 value was cut to 1,000 characters",
    ),
    Case(
        "duplicate-columns",
        text("Email,Tags,City,Tags", f"{ADA},a,Leeds,b"),
        accepted=(ADA,),
        notice="column 4 'Tags' is tags_2",
    ),
    Case(
        "blank-column-name",
        text("Email,,City", f"{ADA},x,Leeds"),
        accepted=(ADA,),
        notice="column 2 was left out because it has no name",
    ),
    Case("cyrillic-column", text("Email,Имя,City", f"{ADA},Ада,Leeds"), accepted=(ADA,), notice="'Имя' is imya"),
    Case(
        "columns-101",
        text(",".join(["Email", *(f"c{n}" for n in range(101))]), ",".join([ADA, *"x" * 101])),
        accepted=(ADA,),
        notice="only the first 100 of 101 columns became attributes; left out: 'c100'; --columns chooses others",
    ),
    Case(
        "columns-101-chosen",
        text(",".join(["Email", *(f"c{n}" for n in range(101))]), ",".join([ADA, *"x" * 101])),
        ("--columns", "c1,c100"),
        accepted=(ADA,),
    ),
    Case(
        "reserved-column-name",
        text("email,In,first_name", f"{ADA},X,Ada"),
        accepted=(ADA,),
        notice="column 'In' was left out because it has a reserved name, unless --columns renames it",
    ),
    Case(
        "contacts-google",
        b"Name,Given Name,Group Membership,E-mail 1 - Type,E-mail 1 - Value,E-mail 2 - Type,E-mail 2 - Value,"
        b"Phone 1 - Type,Address 1 - Formatted,Address 1 - Street\r\n"
        b',Ada,,,ada@example.org,,,,,\r\n,Bob,,,bob@example.org,,,,"1 High Street\nLeeds",\r\n',
        accepted=(ADA, BOB),
    ),
    Case(
        "contacts-hubspot",
        text(
            "Record ID,First Name,Email,Email address quarantine reason,Email Domain,First marketing email click date,"
            "Time between contact creation and deal close (HH:mm:ss),Unsubscribed from all email,Work email",
            f",Ada,{ADA},,,,,,",
            end="\r\n",
        ),
        accepted=(ADA,),
        notice="has a name of more than 50 characters",
    ),
    Case("customers-french", text("Prénom;Nom;E-mail;Téléphone;Ville", f"Ada;B;{ADA};06;Lyon"), accepted=(ADA,)),
    Case("polish-cp1250", text("email;name", f"{ADA};Jiří Dvořák", encoding="cp1250"), refused="cp1250"),
    Case("russian-cp1251", text("email;name", f"{ADA};Иван Петров", encoding="cp1251"), refused="cp1251"),
    Case(
        "utf8-read-as-cp1252",
        text("E-Mail;Vorname", f"{ADA};Jürgen"),
        ("--encoding", "cp1252"),
        refused="UTF-8",
    ),
    Case(
        "utf8-read-as-cp1252-on-purpose",
        text("E-Mail;Vorname", f"{ADA};Jürgen"),
        ("--encoding", "cp1252", "--force-encoding"),
        accepted=(ADA,),
    ),
    Case(
        "consent-column",
        text(
            "Email,First Name,Accepts Email Marketing,Unsubscribed from all email",
            f"{ADA},Ada,yes,false",
            f"{BOB},Bob,no,true",
        ),
        accepted=(ADA, BOB),
        notice="'Accepts Email Marketing' (yes 1, no 1) was not considered",
    ),
    Case(
        "consent-column-selected",
        text(
            "Email,First Name,Accepts Email Marketing,Unsubscribed from all email",
            f"{ADA},Ada,yes,false",
            f"{BOB},Bob,no,true",
        ),
        ("--where", "Accepts Email Marketing=yes"),
        accepted=(ADA,),
        notice="1 row did not match --where",
    ),
    Case("addresses-one-per-line", text(ADA, BOB, CY), accepted=(ADA, BOB, CY)),
    Case(
        "blank-after-quote",
        text("email      , name       , attributes      ", f'{ADA} , Ada     , "{{""a"": true}}"             '),
        accepted=(ADA,),
    ),
    Case("backslash-quotes", text("Email;Company", rf'{ADA};"The \"Best\" Ltd"', f"{BOB};B"), accepted=(ADA, BOB)),
    Case(
        "trailing-cells-left-out",
        text("email,value,note", *(f"a{n}@example.org,10,n" for n in range(16)), f"{ADA},10", BOB, end="\r\n"),
        accepted=(*(f"a{n}@example.org" for n in range(16)), ADA, BOB),
    ),
    Case("double-bom", codecs.BOM_UTF8 * 2 + text("email", ADA), accepted=(ADA,)),
    Case("sep-space", text("sep= ", "email value", f"{ADA} 10", end=" \r\n"), accepted=(ADA,)),
)
"""The shared files, as their reports in public have them."""

LANGUAGES = (
    *(named(f"english-{n}", header) for n, header in enumerate(("EMAIL ADDRESS", "Mail", "emailAddress", "e_mail"))),
    *(named(f"german-{n}", header) for n, header in enumerate(("E-Mail-Adresse", "Mailadresse", "Emailadressen"))),
    *(named(f"french-{n}", header) for n, header in enumerate(("Courriel", "Adresse électronique", "Adresse e-mail"))),
    *(
        named(f"spanish-{n}", header)
        for n, header in enumerate(("Correo electrónico", "Dirección de correo", "Correo"))
    ),
    *(named(f"italian-{n}", header) for n, header in enumerate(("Indirizzo e-mail", "Posta elettronica"))),
    *(named(f"portuguese-{n}", header) for n, header in enumerate(("Endereço de e-mail", "Correio eletrónico"))),
    *(named(f"dutch-{n}", header) for n, header in enumerate(("E-mailadres", "Mailadres"))),
    *(named(f"polish-{n}", header) for n, header in enumerate(("Adres e-mail", "Poczta elektroniczna"))),
    *(named(f"swedish-{n}", header) for n, header in enumerate(("E-post", "E-postadress", "Mejladress"))),
    *(named(f"danish-{n}", header) for n, header in enumerate(("E-mailadresse", "Mailadresse"))),
    named("norwegian", "E-postadresse"),
    named("finnish", "Sähköpostiosoite"),
    named("czech", "E-mailová adresa"),
    named("hungarian", "E-mail cím"),
    named("romanian", "Adresă de e-mail"),
    named("turkish", "E-posta adresi"),
    named("russian", "Адрес электронной почты"),
    named("ukrainian", "Електронна пошта"),
    named("greek", "Διεύθυνση ηλεκτρονικού ταχυδρομείου"),
    named("japanese", "メールアドレス"),
    named("chinese", "电子邮箱"),
)

COLUMNS = (
    Case(
        "likeliest-primary",
        text("Secondary Email;Primary Email;Name", f"{BOB};{ADA};Ada"),
        accepted=(ADA,),
        notice="addresses were read from column 'Primary Email', and not from: 'Secondary Email'",
    ),
    Case(
        "likeliest-first-number",
        text("Email 1;Email 2", f"{ADA};{BOB}"),
        accepted=(ADA,),
        notice="not from: 'Email 2'",
    ),
    Case("likeliest-with-content", text("Email;Work email", f";{ADA}", f";{BOB}"), accepted=(ADA, BOB)),
    Case("likeliest-not-a-status", text("E-Mail-Status;Kunden-E-Mail", f"ok;{ADA}"), accepted=(ADA,)),
    Case(
        "payments",
        text(
            '"Date","Name","From Email Address","To Email Address","Net"',
            f'"01/01/2026","Ada","{ADA}","shop@{SHOP}","1"',
            f'"01/01/2026","Bob","{BOB}","shop@{SHOP}","1"',
        ),
        refused="4 'To Email Address' contain addresses, and column 4 may be your own: specify one of them",
    ),
    Case(
        "payments-german-one-row",
        text("Name;Absender E-Mail-Adresse;Empfänger E-Mail-Adresse", f"Ada;{ADA};shop@{SHOP}"),
        refused="columns 2 'Absender E-Mail-Adresse' and 3 'Empfänger E-Mail-Adresse' contain addresses",
    ),
    Case(
        "mails-with-their-sender",
        text("Sender email;Email", f"shop@{SHOP};{ADA}", f"shop@{SHOP};{BOB}"),
        accepted=(ADA, BOB),
        notice="and not from: 'Sender email'",
    ),
    Case(
        "bounces",
        text("Line,Email,Reason", f"1,{ADA},gone"),
        accepted=(ADA,),
        notice="line 1 is the header of a CSV of rejected lines",
    ),
    Case(
        "where-number-without-header",
        text(f"Ada;{ADA}", f"Bob;{BOB}"),
        ("--no-header", "--where", "1=Bob"),
        accepted=(BOB,),
    ),
    Case(
        "two-address-columns",
        text("Courriel;E-mail", f"{ADA};{BOB}"),
        refused="columns 1 'Courriel', 2 'E-mail' may all be the address column: specify one of them with --column",
    ),
    Case("two-address-columns-chosen", text("Courriel;E-mail", f"{ADA};{BOB}"), ("--column", "2"), accepted=(BOB,)),
    Case(
        "unknown-address-column",
        text("Kontakt;Ort", f"{ADA};Köln"),
        refused="specify the address column with --column (the columns are 1 'Kontakt', 2 'Ort'; column 1 contains",
    ),
    Case(
        "unknown-with-numbers", text("Contact 1;City 2", "x;y"), refused="(the columns are 1 'Contact 1', 2 'City 2')"
    ),
    Case("unknown-without-header", text("Ada;0171 123456", "Bob;2"), refused="--column (the file has 2 columns)"),
    Case("unknown-address-column-named", text("Kontakt;Ort", f"{ADA};Köln"), ("--column", "kontakt"), accepted=(ADA,)),
    Case(
        "no-such-column",
        text("email;Ort", f"{ADA};Köln"),
        ("--columns", "Stadt"),
        refused="no column 'Stadt': the columns are 1 'email', 2 'Ort'",
    ),
    Case("renamed-column", text("E-mail;Prénom", f"{ADA};Ada"), ("--columns", "Prénom=first_name"), accepted=(ADA,)),
    Case("addresses-in-one-line", text(f"{ADA}; {BOB}; {CY}"), refused="write each on a line of its own"),
    Case("only-comments", text("# nothing", "# today"), refused="no table begins here"),
    Case("header-alone", text("email;name")),
    Case(
        "title-above-header",
        text("Customers of 2026;;", "", "email;name;city", f"{ADA};Ada;Leeds"),
        accepted=(ADA,),
        notice="line 1 was skipped as a title",
    ),
    Case(
        "outlook-contacts",
        text(
            "First Name,E-mail Address,E-mail Type,E-mail Display Name,E-mail 2 Address",
            f"Ada,{ADA},SMTP,Ada ({ADA}),{BOB}",
        ),
        accepted=(ADA,),
        notice="and not from: 'E-mail Display Name', 'E-mail 2 Address'",
    ),
    Case(
        "shop-customers",
        text(
            '"Customer ID","First Name","Email","Accepts Email Marketing","Default Address City","Tags"',
            f'"\'1","Ada","{ADA}","yes","Leeds","a, b"',
            end="\r\n",
        ),
        accepted=(ADA,),
        notice="'Accepts Email Marketing' (yes 1)",
    ),
    Case(
        "mailing-list-members",
        text("Email Address,First Name,OPTIN_TIME,TAGS", f'{ADA},Ada,2026-01-02,"""vip"",""new"""'),
        accepted=(ADA,),
        notice="column 'OPTIN_TIME' (1 different value) was not considered",
    ),
    Case("table-without-header", text(f"{ADA};Ada", f"{BOB};Bob"), refused="without a header, use --no-header"),
    Case(
        "table-without-header-on-request",
        text(f"Ada;{ADA}", f"Bob;{BOB}"),
        ("--no-header",),
        accepted=(ADA, BOB),
        notice="column 1 was left out because it has no name",
    ),
    Case(
        "japanese-columns",
        text("メールアドレス,名前,市", f"{ADA},エイダ,東京"),
        accepted=(ADA,),
        notice="column names were transliterated: '名前' is mingqian",
    ),
    Case("trailing-nameless-columns", text("email,city,,", f"{ADA},Leeds,,", f"{BOB},York,,x"), accepted=(ADA, BOB)),
)

LISTS = (
    Case("list-with-header", text("E-Mail", ADA, BOB), accepted=(ADA, BOB)),
    Case(
        "list-with-unknown-header",
        text("Abonnenten", ADA),
        accepted=(ADA,),
        notice="line 1 contains no address and was read as a header",
    ),
    Case("list-with-names", text(f"Ada Lovelace <{ADA}>", f"Bob <{BOB}>"), accepted=(ADA, BOB)),
    Case("list-of-a-mail-program", text(f'"Lovelace, Ada" <{ADA}>;', f"Lovelace, Bob <{BOB}>;"), accepted=(ADA, BOB)),
    Case("list-with-commas", text(f"{ADA},", f"{BOB},", CY), accepted=(ADA, BOB, CY)),
    Case("list-in-brackets", text(f"<{ADA}>", f"<mailto:{BOB}>"), accepted=(ADA, BOB)),
    Case("list-windows", codecs.BOM_UTF8 + text(ADA, "", BOB, end="\r\n"), accepted=(ADA, BOB)),
    Case("list-utf-16", codecs.BOM_UTF16_LE + text(ADA, BOB, encoding="utf-16-le"), accepted=(ADA, BOB)),
    Case("list-with-quotes", text(f'"ada a"@{SHOP}', BOB), accepted=(f'"ada a"@{SHOP}', BOB)),
    Case("list-with-comment", text("# export of 2026", ADA, BOB), accepted=(ADA, BOB), notice="line 1"),
    Case("list-with-bad-lines", text(ADA, "nobody", BOB), accepted=(ADA, BOB), rejected={2: "bad_address"}),
    Case("list-partly-quoted", text(ADA, f'"{BOB}"', f"'{CY}'"), accepted=(ADA, BOB, CY)),
    Case("list-quoted", text(f'"{ADA}"', f'"{BOB}"'), accepted=(ADA, BOB)),
    Case("list-with-skipped-lines", text("Export", "of today", ADA), ("--skip-lines", "2"), accepted=(ADA,)),
    Case("list-with-where", text(ADA, BOB), ("--where", "state=new"), refused="--where needs a header line"),
    Case("list-with-numbers", text(f"1. {ADA}", f"2. {BOB}"), accepted=(ADA, BOB), notice="before 2 addresses were"),
    Case("list-with-numbers-column", text(f"1. {ADA}", f"2. {BOB}"), ("--column", "1"), accepted=(ADA, BOB)),
    Case("list-with-bullets", text(f"- {ADA}", f"\u2022 {BOB}", f"* Cy <{CY}>"), accepted=(ADA, BOB, CY)),
    Case("list-with-comments", text(f"{ADA} (Ada L)", f"{BOB} (Bob)"), accepted=(ADA, BOB)),
    Case(
        "list-with-names-behind",
        text(f"{ADA} Ada L", f"{BOB} - Bob", f"{CY} cy"),
        accepted=(ADA, BOB),
        rejected={3: "bad_address"},
    ),
    Case(
        "list-with-quotes-of-a-text-program",
        text(f"\u201c{ADA}\u201d", f"\u201e{BOB}\u201c"),
        accepted=(ADA, BOB),
        notice="2 addresses in quotes: the quotes were removed",
    ),
    Case(
        "list-with-apostrophes",
        text(f"'{ADA}", f"'{BOB}", "o'hara@example.org"),
        accepted=(ADA, BOB, "o'hara@example.org"),
        notice="2 addresses with a leading apostrophe",
    ),
    Case("list-with-names-before", text(f"Ada ({ADA})", f"Bob: {BOB}", f"Cy - {CY}"), accepted=(ADA, BOB, CY)),
    Case("list-of-links", text(f"[{ADA}](mailto:{ADA})", f"[{BOB}]"), accepted=(ADA, BOB)),
    Case(
        "list-with-divided-addresses",
        text("ada@mail.exam ple.org", "ada@mail.exam Ple.org", "ada lovelace@example.org", BOB, CY, ADA),
        accepted=(BOB, CY, ADA),
        rejected=dict.fromkeys((1, 2, 3), "bad_address"),
    ),
    Case("list-with-numbers-without-blank", text(f"1.{ADA}", f"2.{BOB}", f"3.{CY}"), refused="remove the numbers"),
    Case("list-with-bad-first-line", text("adaexample.org", BOB, CY), accepted=(BOB, CY), rejected={1: "bad_address"}),
    Case("list-with-spelled-first-line", text("ada(at)example.org", BOB), accepted=(BOB,), rejected={1: "bad_address"}),
    Case("list-with-two-ats-first", text("ada@@example.org", BOB), accepted=(BOB,), rejected={1: "bad_address"}),
    Case("list-with-separators", text(f"{ADA};", f"{BOB};"), accepted=(ADA, BOB)),
    Case("list-with-two-in-a-line", text(ADA, f"{BOB}, {CY}"), accepted=(ADA,), rejected={2: "bad_address"}),
)

ADDRESSES = (
    Case(
        "address-flaws",
        text(
            "email",
            "ada@example.org.",
            f"{'x' * 65}@example.org",
            f"ada@{'ü' * 60}.org",
            "ada@-example.org",
            "ada lovelace@example.org",
            "ada..l@example.org",
            BOB,
        ),
        accepted=(BOB,),
        rejected=dict.fromkeys(range(2, 8), "bad_address"),
    ),
    Case(
        "address-forms",
        text(
            "email;name",
            '"""ada lovelace""@example.org";Ada',
            "jörg@example.org;Jörg",
            "ada@bücher.example;Ada",
            "ada@[192.0.2.1];Ada",
            "o'neil+x@example.org;O",
            f"Ada <{ADA}>;Ada",
        ),
        accepted=(
            '"ada lovelace"@example.org',
            "jörg@example.org",
            "ada@xn--bcher-kva.example",
            "ada@[192.0.2.1]",
            "o'neil+x@example.org",
            ADA,
        ),
        notice="names and brackets around 1 address were ignored",
    ),
    Case(
        "address-as-formula",
        text("email;n", f'="{ADA}";1', f"'{BOB};2"),
        accepted=(ADA, BOB),
        notice="1 address written as a formula",
    ),
    Case(
        "rejected-addresses-are-not-counted",
        text("email;n", '"""<x>""@example.org";1', "Ada <ada@@example.org>;2", f"Bob <{BOB}>;3"),
        accepted=('"<x>"@example.org', BOB),
        rejected={3: "bad_address"},
        notice="names and brackets around 1 address were ignored",
    ),
    Case(
        "invalid-address-in-the-first-row",
        text("ada@@example.org;Ada", f"{BOB};Bob"),
        ("--column", "1"),
        refused="use --no-header",
    ),
    Case("first-row-without-address", text("Ada;", f"Bob;{BOB}"), refused="line 2: a header row must be here"),
    Case("no-address", text("email;name", ";Ada", f"{BOB};Bob", ";"), accepted=(BOB,), rejected={2: "no_address"}),
    Case(
        "too-many-cells",
        text("email;name", f"{ADA};Ada;Lovelace", f"{BOB};Bob;;"),
        accepted=(BOB,),
        rejected={2: "columns"},
    ),
)

ROWS = (
    Case(
        "where-not",
        text("email;Status", f"{ADA};active", f"{BOB};Bounced", f"{CY}; ACTIVE "),
        ("--where", "status!=bounced"),
        accepted=(ADA, CY),
        notice="1 row did not match --where",
    ),
    Case(
        "where-several",
        text("email;Einwilligung;Land", f"{ADA};ja;DE", f"{BOB};ja;AT", f"{CY};nein;DE"),
        ("--where", "Einwilligung=ja", "--where", "Land=de"),
        accepted=(ADA,),
        notice="2 rows did not match --where",
    ),
    Case("where-number", text("email;x", f"{ADA};1", f"{BOB};2"), ("--where", "2=2"), accepted=(BOB,)),
    Case("where-attribute", text("email;Opt In", f"{ADA};1", f"{BOB};0"), ("--where", "opt_in=1"), accepted=(ADA,)),
    Case(
        "where-unknown-column",
        text("email;Status", f"{ADA};active"),
        ("--where", "State=active"),
        refused="no column 'State': the columns are 1 'email', 2 'Status'",
    ),
    Case("where-malformed", text("email;x", f"{ADA};1"), ("--where", "x"), refused="write COLUMN=VALUE"),
    Case(
        "consent-german",
        text("E-Mail;Einwilligung", f"{ADA};ja", f"{BOB};nein", f"{CY};ja"),
        accepted=(ADA, BOB, CY),
        notice="column 'Einwilligung' (ja 2, nein 1) was not considered",
    ),
    Case(
        "consent-french",
        text("Courriel;Désabonné", f"{ADA};oui"),
        accepted=(ADA,),
        notice="column 'Désabonné' (oui 1) was not considered",
    ),
    Case(
        "consent-with-dates",
        text("Email;Opted out at", f"{ADA};2026-01-02"),
        accepted=(ADA,),
        notice="column 'Opted out at' (1 different value) was not considered",
    ),
    Case(
        "consent-empty",
        text("Email;Accepts Email Marketing", f"{ADA};", f"{BOB};yes"),
        accepted=(ADA, BOB),
        notice="(empty 1, yes 1)",
    ),
)

RECIPIENT_FILES = (*SHARED, *LANGUAGES, *COLUMNS, *LISTS, *ADDRESSES, *ROWS)
