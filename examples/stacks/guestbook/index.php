<?php
// GET shows the guests, POST with name=... adds one.
mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
$password = trim(file_get_contents('/run/secrets/db_password'));
$db = new mysqli('db', 'app', $password, 'guestbook');
$db->query('CREATE TABLE IF NOT EXISTS guests (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(200) NOT NULL)');
if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    $insert = $db->prepare('INSERT INTO guests (name) VALUES (?)');
    $insert->execute([$_POST['name'] ?? 'somebody']);
}
echo "<!doctype html>\n<title>Guests</title>\n<ul>\n";
foreach ($db->query('SELECT name FROM guests ORDER BY id') as $guest) {
    echo '<li>', htmlspecialchars($guest['name']), "</li>\n";
}
echo "</ul>\n<form method=\"post\"><input name=\"name\"><button>Sign</button></form>\n";
