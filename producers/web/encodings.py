"""The encodings that the forms of the console offer, by script, and the files that they accept."""

ENCODINGS = {
    "Unicode": {
        "utf-8": "UTF-8",
        "utf-16": "UTF-16 (Excel's “Unicode text”)",
        "utf-16-le": "UTF-16 LE without byte order mark",
        "utf-16-be": "UTF-16 BE without byte order mark",
    },
    "Western European": {
        "cp1252": "Windows-1252",
        "iso-8859-15": "ISO 8859-15",
        "mac-roman": "Mac Roman",
        "cp850": "CP 850 (DOS)",
        "cp437": "CP 437 (DOS)",
    },
    "Central European": {
        "cp1250": "Windows-1250",
        "iso-8859-2": "ISO 8859-2",
        "iso-8859-16": "ISO 8859-16 (Romanian)",
        "mac-latin2": "Mac Latin 2",
        "cp852": "CP 852 (DOS)",
    },
    "Cyrillic": {
        "cp1251": "Windows-1251",
        "koi8-r": "KOI8-R (Russian)",
        "koi8-u": "KOI8-U (Ukrainian)",
        "iso-8859-5": "ISO 8859-5",
        "cp866": "CP 866 (DOS)",
        "mac-cyrillic": "Mac Cyrillic",
    },
    "Greek": {"cp1253": "Windows-1253", "iso-8859-7": "ISO 8859-7", "mac-greek": "Mac Greek"},
    "Turkish": {"cp1254": "Windows-1254", "iso-8859-9": "ISO 8859-9", "mac-turkish": "Mac Turkish"},
    "Baltic": {"cp1257": "Windows-1257", "iso-8859-13": "ISO 8859-13"},
    "Hebrew": {"cp1255": "Windows-1255"},
    "Arabic": {"cp1256": "Windows-1256"},
    "Thai": {"cp874": "Windows-874"},
    "Vietnamese": {"cp1258": "Windows-1258"},
    "East Asian": {
        "shift_jis": "Shift JIS (Japanese)",
        "euc-jp": "EUC-JP (Japanese)",
        "iso2022_jp": "ISO-2022-JP (Japanese)",
        "gbk": "GBK (Chinese)",
        "gb18030": "GB 18030 (Chinese)",
        "big5": "Big5 (Chinese)",
        "euc-kr": "EUC-KR (Korean)",
    },
}

ACCEPTED_FILES = ".txt,.csv,.tsv,.xlsx,.xlsm,.xls,.ods,.gz,.zip,text/plain,text/csv"
