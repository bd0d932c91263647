<?php
// As play.py, for a recipe in PHP: php play.php LIBRARY.php < ORDER.json, in the folder of the recipe's mail.php.

require $argv[1];
foreach (is_file('.env') ? parse_ini_file('.env') : [] as $name => $value) {
    $_ENV[$name] = $value;
}
require getcwd() . '/mail.php';

$send = ['newsletter' => 'sendNewsletter', 'receipt' => 'sendReceipt'];
$answers = [];
foreach (json_decode(stream_get_contents(STDIN)) as [$what, $reader]) {
    $answers[] = $send[$what]($reader);
}
echo json_encode($answers), "\n";
