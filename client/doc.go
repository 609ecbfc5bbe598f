// Package client is Wrenn's Go client: it speaks to the REST API of a `wrenn server` or `wrenn up`.
//
//	c, err := client.New("https://wrenn.example.org", client.WithAPIKey(os.Getenv("WRENN_API_KEY")))
//	sb, err := c.Sandboxes.Create(ctx, client.CreateOptions{Template: "base", TTL: 30 * time.Minute})
//	defer sb.Destroy(context.WithoutCancel(ctx))
//	result, err := sb.Exec(ctx, client.Command{Cmd: "python3", Args: []string{"-c", "print(6 * 7)"}})
//	fmt.Printf("%s", result.Stdout)
//
// # Values
//
// A [Sandbox] is what was true when it was asked; [Sandbox.Refresh] asks again. Lists are iterators that ask for a page when it is needed:
//
//	for sb, err := range c.Sandboxes.List(ctx, client.ListOptions{States: []client.State{client.Paused}}) {
//
// # Errors
//
// An error that the server told is an [*Error], with the field, the fix and the id of the request in the server's log. Its kind is a value:
//
//	if errors.Is(err, client.ErrNotFound) { … }
//
// A command that fails is a [Result] and no error. When a context ends, the error is its cause.
//
// # Asking again
//
// When an answer is lost, or the server says that it may work later, the client asks again, [DefaultRetries] times at most, each time after
// a longer wait, and not before the server's Retry-After. It does so only where nothing can happen twice: what makes or changes something
// carries an Idempotency-Key that it chose ([WithIdempotencyKey] gives one of the caller's own). A command that failed because something
// did not answer is not run again, a stream that has begun is not asked for again; [Client.Events] goes on where it was, for about a minute
// without an answer.
//
// # Bounds
//
// Every call ends with its context; give it a deadline. What is read of an answer is bounded, streams are read as they are taken.
package client
