# Forks and changes users as OpenSSH does since 10.0, and speaks no SSH: a byte of the client is a login.
# Port, programs for the session and for the time before a login, users before and after it.
use Socket;

$^F = 255;
my ($port, $session, $auth, $before, $user) = @ARGV;
my $end_with_parent = 'sleep 1 while getppid() == $parent;';
# The sandbox: no_new_privileges, then another user (prctl(2), PR_SET_NO_NEW_PRIVS).
my $auth_script = 'my ($parent, $before) = @ARGV; '
    . 'syscall(157, 38, 1, 0, 0, 0) == 0 or die; ($(, $)) = ($before, $before); ($<, $>) = ($before, $before);'
    . $end_with_parent;
my $session_script = <<'END';
$^F = 255;
my ($fd, $auth, $auth_script, $before, $user, $end_with_parent) = @ARGV;
open(my $client, "+<&=", $fd) or die "no connection: $!";
my $child = fork;
if ($child == 0) {
    exec $auth, "-e", $auth_script, getppid(), $before or die "no program: $!";
}
sysread($client, my $login, 1) or exit;
kill 9, $child;
waitpid $child, 0;
my $parent = $$;
if (fork == 0) {
    ($(, $)) = ($user, $user);
    ($<, $>) = ($user, $user);
    eval $end_with_parent;
    exit;
}
1 while sysread($client, my $more, 1);
END
socket(my $listener, PF_INET, SOCK_STREAM, 0) or die "no socket: $!";
setsockopt($listener, SOL_SOCKET, SO_REUSEADDR, 1);
bind($listener, sockaddr_in($port, INADDR_ANY)) or die "no port: $!";
listen($listener, 5) or die "no listener: $!";
$SIG{CHLD} = "IGNORE";
while (accept(my $client, $listener)) {
    if (fork == 0) {
        $SIG{CHLD} = "DEFAULT";
        exec $session, "-e", $session_script, fileno($client), $auth, $auth_script, $before, $user,
            $end_with_parent or die "no program: $!";
    }
    close $client;
}
