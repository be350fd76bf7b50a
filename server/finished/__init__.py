"""From updates and weights to the finished model, without a whole run or after one."""
