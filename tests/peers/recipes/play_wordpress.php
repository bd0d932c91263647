<?php
// Call a hook of WordPress's phpmailer_init as wp_mail does, and send a receipt: php play_wordpress.php LIBRARY.php READER

require $argv[1];

$hooks = [];
function add_action(string $name, callable $hook): void
{
    $GLOBALS['hooks'][$name] = $hook;
}
require __DIR__ . '/relay.php';

$mailer = new PHPMailer\PHPMailer\PHPMailer(true);
$mailer->setFrom('billing@example.com', 'Shop', false);
$mailer->Subject = 'Your receipt';
$mailer->Body = 'Thank you.';
$mailer->addAddress($argv[2]);
$mailer->isMail();
$hooks['phpmailer_init']($mailer);
$mailer->send();
