package hostagent

// SetMaxBuried changes how many records of sandboxes that ended by themselves are kept. Call it before there are any.
func (a *Agent) SetMaxBuried(n int) { a.maxBuried = n }
