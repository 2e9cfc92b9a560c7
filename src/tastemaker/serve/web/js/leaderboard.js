export const title=()=>'leaderboard'; export async function open(root){ return {}; }
