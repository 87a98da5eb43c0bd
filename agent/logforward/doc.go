// Package logforward sends what tasks write on, to syslog or to the node's journal.
//
// It writes no log files (skep-runtime does) and decides nothing: the log driver of a task says where its lines go, and managers have
// admitted that.
//
//	skep-runtime -> files of a task -> Reader -> entry -> message -> socket
//	                                     ^                    |
//	                                     +-- position file <--+
//
// Following a task begins when its container is made, and ends when the task has ended and all that it wrote was sent, or its files
// were removed.
//
// Invariants:
//
//	F1  A server that is slow or gone never holds up a container, and costs no memory: lines wait in the task's own bounded files, and one
//	    of each task in memory.
//	F2  Lines that were removed from the files before they were sent, or that no message can hold, are counted, and the first line after
//	    them says how many.
//	F3  After a restart of the daemon, sending goes on after the last line that was sent. A crash repeats at most the lines of the second
//	    before it. Nothing is lost by either; what a connection that broke had taken and not delivered is, as syslog has no answers.
//	F4  What a container writes is the text of a message and nothing else: control characters are escaped, and names of tags made of letters,
//	    digits and -_. behind "skep/", which no program of the node is called.
//	F5  What a node is short of (files, watches, room for the position) delays lines and never ends the sending of a task's.
//
// A Forwarder is safe for concurrent use.
//
// On disk: beside a task's log, log.json.sent, JSON: {"seq":N}, the number of the last entry that was sent. Entries without numbers, of older
// versions, are not sent.
//
// Sources: RFC 5424 (messages), RFC 5425 and RFC 6587 3.4.1 (octets are counted on streams), RFC 3164 (the older format, and without a host name
// on the node's own socket, as glibc's syslog(3)), https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.
package logforward
