"""Names and cities in 30 languages, and the encodings in which programs of their countries write them."""

_WEST = ("cp1252", "iso-8859-15", "cp850", "mac-roman")
_CENTRAL = ("cp1250", "iso-8859-2", "cp852", "mac-latin2")
_CYRILLIC = ("cp1251", "koi8-r", "iso-8859-5", "cp866", "mac-cyrillic")
_UKRAINIAN = ("cp1251", "koi8-u", "iso-8859-5", "mac-cyrillic")
_BALTIC = ("cp1257", "iso-8859-13")

PEOPLE: dict[str, tuple[tuple[str, ...], str]] = {
    "German": (_WEST, "Jürgen Müller;Köln|Anna Groß;München|Björn Schäfer;Düsseldorf|Käthe Weiß;Lübeck|Jörg Böhm;Nürnberg"),
    "French": (_WEST, "François Lefèvre;Orléans|Hélène Bérard;Besançon|Zoé Étienne;Nîmes|Noël Forêt;Évreux|Chloé Pâris;Mâcon"),
    "Spanish": (_WEST, "José Núñez;Málaga|María Peña;Cádiz|Ángel Martín;León|Begoña Ibáñez;Córdoba|Raúl Gómez;Mérida"),
    "Portuguese": (_WEST, "João Gonçalves;São Paulo|Conceição Simões;Évora|Inês Falcão;Brasília|André Guimarães;Belém"),
    "Italian": (("cp1252", "iso-8859-15"), "Niccolò Nardò;Forlì|Mosè Calabrò;Cefalù|Salomè Carfì;Nardò|Loredana Pantò;Mondovì"),
    "Swedish": (_WEST, "Åsa Sjöström;Malmö|Björn Åkesson;Västerås|Märta Öberg;Jönköping|Göran Lönn;Linköping"),
    "Danish": (_WEST, "Søren Kjær;Århus|Bjørn Øster;Næstved|Åse Nørgård;Tønder|Jørgen Sæther;Tromsø"),
    "Finnish": (_WEST, "Väinö Hämäläinen;Jyväskylä|Päivi Mäkelä;Hämeenlinna|Yrjö Kärkkäinen;Järvenpää"),
    "Icelandic": (("cp1252", "iso-8859-15"), "Þórður Sigurðsson;Reykjavík|Ásta Guðmundsdóttir;Ísafjörður|Björk Ægisdóttir;Höfn"),
    "Polish": (_CENTRAL, "Łukasz Wiśniewski;Łódź|Małgorzata Wójcik;Gdańsk|Żaneta Dąbrowska;Poznań|Paweł Kamiński;Wrocław"),
    "Czech": (_CENTRAL, "Jiří Dvořák;Plzeň|Věra Černá;Děčín|Tomáš Růžička;Třebíč|Zdeněk Šťastný;Jičín|Bořivoj Hájek;Kroměříž"),
    "Slovak": (_CENTRAL, "Ľubomír Kováč;Košice|Božena Hlaváčová;Žilina|Štefan Ďurica;Banská Štiavnica|Mária Vašková;Nové Zámky"),
    "Hungarian": (_CENTRAL, "Győző Szűcs;Győr|Ágnes Kővári;Hódmezővásárhely|László Tóth;Székesfehérvár|Erzsébet Fűzfa;Pécs"),
    "Croatian": (_CENTRAL, "Željko Đurđević;Šibenik|Ivana Horvatić;Čakovec|Siniša Knežević;Požega|Tomislav Šarić;Metković"),
    "Romanian": (("cp1250", "iso-8859-2"), "Ştefan Bălăşescu;Braşov|Ionuţ Rădulescu;Bucureşti|Cătălina Năstase;Galaţi|Mihăiţă Pătraşcu;Ploieşti"),
    "Turkish": (("cp1254", "iso-8859-9"), "Çağla Yıldız;Eskişehir|Şükrü Öztürk;Muğla|Gülşen Işık;Diyarbakır|İbrahim Doğan;İzmir"),
    "Lithuanian": (_BALTIC, "Jūratė Kazlauskienė;Šiauliai|Živilė Petrauskaitė;Panevėžys|Eglė Žukauskienė;Mažeikiai"),
    "Latvian": (_BALTIC, "Jānis Bērziņš;Rīga|Līga Kalniņa;Jūrmala|Mārtiņš Ozoliņš;Rēzekne|Elīna Krūmiņa;Jēkabpils"),
    "Russian": (_CYRILLIC, "Иван Петров;Москва|Ольга Смирнова;Санкт-Петербург|Сергей Кузнецов;Новосибирск|Юлия Щукина;Челябинск|ФЁДОР ЖУКОВ;УФА"),
    "Ukrainian": (_UKRAINIAN, "Олексій Ковальчук;Київ|Наталія Шевченко;Чернігів|Євген Їжакевич;Запоріжжя|Юрій Мельник;Львів"),
    "Bulgarian": (("cp1251", "mac-cyrillic", "iso-8859-5"), "Георги Димитров;София|Десислава Стоянова;Пловдив|Христо Ангелов;Търговище|Елена Василева;Велико Търново"),
    "Greek": (("cp1253", "iso-8859-7"), "Γιώργος Παπαδόπουλος;Αθήνα|Ελένη Αλεξίου;Θεσσαλονίκη|Νίκος Βασιλείου;Ηράκλειο|Άννα Σταύρου;Πάτρα"),
    "Japanese": (("shift_jis", "euc-jp"), "田中太郎;東京都|佐藤 花子;大阪府|山本健一;横浜市|すずき みか;さいたま市|渡辺 直美;カナガワ"),
    "Chinese": (("gbk", "gb18030"), "王小明;北京|张伟;上海市|李娜;深圳市|刘洋;成都|陈静;杭州市|赵敏;武汉"),
    "Taiwanese": (("big5",), "陳志明;台北市|林淑芬;高雄市|黃俊傑;新竹縣|張雅婷;台中市|王美玲;桃園"),
    "Korean": (("euc-kr",), "김민수;서울|이영희;부산광역시|박지훈;대구|최수진;인천|정현우;광주"),
    "Hebrew": (("cp1255",), "דוד כהן;תל אביב|שרה לוי;ירושלים|משה פרידמן;חיפה|רחל מזרחי;באר שבע|יוסף אברהם;נתניה"),
    "Arabic": (("cp1256",), "محمد أحمد;القاهرة|فاطمة علي;دمشق|يوسف إبراهيم;بيروت|خديجة حسن;الرباط|عبد الله سالم;الرياض"),
    "Thai": (("cp874",), "สมชาย ใจดี;กรุงเทพ|สมหญิง รักไทย;เชียงใหม่|ประเสริฐ ศรีสุข;ภูเก็ต|วิภา แก้วมณี;ขอนแก่น"),
    "Vietnamese": (("cp1258",), "Nguyễn Thị Hương;Hà Nội|Trần Văn Đức;Đà Nẵng|Lê Hoàng Phúc;Cần Thơ|Phạm Quốc Việt;Hải Phòng"),
}  # fmt: skip
"""By language: the encodings, and the names with cities, separated by `|`."""


def lines_of(language: str) -> list[str]:
    return PEOPLE[language][1].split("|")
